// What all parts of the page use. Text of the report reaches the document as text nodes and attribute values only.

const report = JSON.parse(document.getElementById("report").textContent);
const ABSENT = "\u2013";

function byId(id) {
  return document.getElementById(id);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

function make(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

function drawn(tag, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

// Numbers for people; null is what was not measured.
function number(value, digits) {
  return value === null || value === undefined ? ABSENT : value.toFixed(digits).replace("-", "\u2212");
}

function whole(value) {
  return value === null ? ABSENT : value.toLocaleString("en");
}

function valueOf(panel, value) {
  const unit = panel.metric === "psnr" && value !== null && value !== undefined ? " dB" : "";
  return number(value, panel.digits) + unit;
}

function counted(count, noun) {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

function colourOf(series) {
  return series.name === "ckbd" ? "var(--own)" : series.colour;
}

// Buttons of which one is chosen: items [[value, text], ...]. Gives a function that chooses without being asked.
function choices(host, label, items, chosen, choose) {
  const buttons = items.map(([value, text], i) => {
    const button = make("button", { type: "button", role: "radio" }, text);
    button.addEventListener("click", () => {
      show(value);
      choose(value);
    });
    button.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (step) {
        const other = (i + step + items.length) % items.length;
        event.preventDefault();
        event.stopPropagation();
        buttons[other].click();
        buttons[other].focus();
      }
    });
    return button;
  });
  function show(value) {
    items.forEach(([one], i) => {
      buttons[i].setAttribute("aria-checked", one === value);
      buttons[i].tabIndex = one === value ? 0 : -1;
    });
  }
  host.setAttribute("role", "radiogroup");
  host.setAttribute("aria-label", label);
  host.replaceChildren(...buttons);
  show(chosen);
  return show;
}

function summary() {
  const what = `${counted(report.count, "picture")}, model ${report.model}, shown at quality ${report.quality}`;
  byId("summary").textContent = what;
  const lines = Object.entries(report.absent).map(([name, why]) => `${name} was not measured: ${why}`);
  if (report.left) {
    lines.push(`${counted(report.left, "picture")} of ${report.count} are not shown: the page would be too large.`);
  }
  lines.push(
    "Every rate is that of bytes that exist and were decoded again. Rivals are those of Pillow, each at its better effort.",
  );
  byId("footer").append(...lines.map((line) => make("p", {}, line)));
}

function theme() {
  const button = byId("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (document.documentElement.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
  const name = () => {
    button.textContent = isDark() ? "light" : "dark";
    button.setAttribute("aria-label", `${button.textContent} colours`);
  };
  button.addEventListener("click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    name();
  });
  system.addEventListener("change", name);
  name();
}

summary();
theme();
