// The keyboard, while the focus is in the viewer; what a control does with a key by itself is left to it.

const HELP = [
  [["\u2190", "\u2192"], "move the divider; with shift further, Home and End all the way"],
  [["space"], "the left layer whole, the right layer whole"],
  [["1", "\u2026", "5"], "the right layer: original, ckbd and the rivals; with shift the left"],
  [["\u2191", "\u2193"], "previous and next picture; also p and n, k and j"],
  [["+", "\u2212"], "zoom, as the wheel or two fingers do"],
  [["0", "f"], "1:1, and the whole picture"],
  [["?"], "this list"],
];
const ACTIONS = {
  ArrowLeft: (further) => setDivide(view.divide - (further ? 0.1 : 0.01)),
  ArrowRight: (further) => setDivide(view.divide + (further ? 0.1 : 0.01)),
  Home: () => setDivide(0),
  End: () => setDivide(1),
  " ": () => setDivide(view.divide === 1 ? 0 : 1),
  ArrowUp: () => turnTo(-1),
  ArrowDown: () => turnTo(1),
  p: () => turnTo(-1),
  n: () => turnTo(1),
  k: () => turnTo(-1),
  j: () => turnTo(1),
  "+": () => zoomStep(1),
  "=": () => zoomStep(1),
  "-": () => zoomStep(-1),
  0: zoomActual,
  f: zoomFit,
};

function keyboard() {
  byId("viewer").addEventListener("keydown", (event) => {
    const tag = event.target.tagName;
    if (event.ctrlKey || event.metaKey || event.altKey || tag === "SELECT" || (tag === "BUTTON" && event.key === " ")) {
      return;
    }
    const digit = /^(?:Digit|Numpad)([1-9])$/.exec(event.code);
    if (digit) {
      event.preventDefault();
      setLayer(event.shiftKey ? "left" : "right", Number(digit[1]) - 1);
    } else if (ACTIONS[event.key]) {
      event.preventDefault();
      ACTIONS[event.key](event.shiftKey);
    }
  });

  const show = () => byId("help").showModal();
  byId("keys").addEventListener("click", show);
  document.addEventListener("keydown", (event) => {
    if (event.key === "?" && event.target.tagName !== "SELECT" && !byId("help").open) {
      event.preventDefault();
      show();
    }
  });
  const lines = HELP.map(([keys, text]) => [
    make("dt", {}, ...keys.flatMap((key) => (key === "\u2026" ? [" \u2026 "] : [make("kbd", {}, key), " "]))),
    make("dd", {}, text),
  ]);
  byId("help-keys").append(...lines.flat());
}

keyboard();
