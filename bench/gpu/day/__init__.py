"""A day with a GPU: what is missing, in the order of value, in the minutes that there are."""
