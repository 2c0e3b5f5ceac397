// Files of the picture that is shown, from the page's text to addresses that an image can have.

const files = { picture: -1, parsed: [], addresses: new Map() };

function addressOf(picture, layer) {
  if (files.picture !== picture) {
    files.addresses.forEach((address) => URL.revokeObjectURL(address));
    files.addresses.clear();
    files.parsed = JSON.parse(byId(`picture-${picture}`).textContent);
    files.picture = picture;
  }
  if (!files.addresses.has(layer)) {
    const { type, data } = files.parsed[layer];
    const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
    files.addresses.set(layer, URL.createObjectURL(new Blob([bytes], { type })));
  }
  return files.addresses.get(layer);
}

// Puts a layer into a side of the stage; resolves when it is seen, or cannot be.
function putLayer(side, picture, layer) {
  const img = side.querySelector("img");
  const address = addressOf(picture, layer);
  if (img.src === address) {
    return Promise.resolve();
  }
  return new Promise((resolve) => {
    const done = (broken) => {
      if (img.src === address) {
        side.classList.toggle("broken", broken);
      }
      resolve();
    };
    img.onload = () => done(false);
    img.onerror = () => done(true);
    img.decoding = "sync"; // nothing blank between two layers
    img.src = address;
  });
}
