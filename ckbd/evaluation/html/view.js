// Two layers of a picture, the right one over the left one from the divider on.

const view = { picture: 0, left: "original", right: "ckbd", divide: 0.5 };
const chosen = {}; // by side, what shows the choice of its card

function currentPicture() {
  return report.pictures[view.picture];
}

// The number of the side's layer: by its name, since a picture may lack one that others have.
function layerNumber(side) {
  const found = currentPicture().layers.findIndex((layer) => layer.name === view[side]);
  return found < 0 ? 0 : found;
}

function bytesText(layer) {
  return layer.bytes === null ? "" : `, ${counted(layer.bytes, "byte").replace(/^\d+/, whole(layer.bytes))}`;
}

function setDivide(fraction) {
  view.divide = Math.min(Math.max(fraction, 0), 1);
  const at = Math.round(view.divide * stage.clientWidth * devicePixelRatio) / devicePixelRatio;
  byId("right").style.clipPath = `inset(0 0 0 ${at}px)`;
  divider.style.left = `${at}px`;
  divider.setAttribute("aria-valuenow", Math.round(view.divide * 100));
  const [left, right] = ["left", "right"].map((side) => currentPicture().layers[layerNumber(side)].name);
  divider.setAttribute("aria-valuetext", `${left} up to ${Math.round(view.divide * 100)} %, then ${right}`);
  byId("left-badge").classList.toggle("away", view.divide === 0);
  byId("right-badge").classList.toggle("away", view.divide === 1);
}

function setLayer(side, number) {
  const layer = currentPicture().layers[number];
  if (layer) {
    view[side] = layer.name;
    showLayers();
  }
}

function facts(layer) {
  if (layer.bytes === null) {
    return [["pixels", `${currentPicture().width} \u00d7 ${currentPicture().height}`]];
  }
  const values = report.panels.map((panel) => [panel.label, valueOf(panel, layer.values[panel.metric])]);
  return [["bytes", whole(layer.bytes)], ["bits per pixel", number(layer.bpp, 3)], ...values];
}

function card(side) {
  const host = byId(`${side}-card`);
  const layers = currentPicture().layers;
  const place = layerNumber(side);
  const layer = layers[place];
  const list = facts(layer).map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value)));
  const line = make("p", { class: "line" }, make("b", {}, layer.name), ` ${layer.made}`);
  const parts = [line, make("dl", {}, ...list)];
  if (!layer.fits) {
    parts.push(make("p", { class: "warn" }, "More bytes than ckbd: even its smallest file has."));
  }
  parts.push(make("p", { class: "about" }, `Here: ${layer.note}.`));
  if (!chosen[side] || chosen[side].of !== layers) {
    const group = make("div", { class: "choices" });
    const items = layers.map((one, i) => [i, one.name]);
    const show = choices(group, `${side} layer`, items, place, (i) => setLayer(side, i));
    chosen[side] = { of: layers, group, show };
  }
  chosen[side].show(place);
  if (host.firstChild !== chosen[side].group) {
    host.replaceChildren(chosen[side].group);
  }
  while (host.children.length > 1) {
    host.lastChild.remove();
  }
  host.append(...parts);
}

async function showLayers() {
  stage.setAttribute("aria-busy", true);
  for (const side of ["left", "right"]) {
    const layer = currentPicture().layers[layerNumber(side)];
    byId(`${side}-badge`).textContent = layer.name + bytesText(layer);
    card(side);
  }
  setDivide(view.divide);
  const before = [view.picture, view.left, view.right].join();
  await Promise.all(["left", "right"].map((side) => putLayer(byId(side), view.picture, layerNumber(side))));
  if ([view.picture, view.left, view.right].join() === before) {
    stage.setAttribute("aria-busy", false);
  }
}

function openPicture(number, seek = false) {
  view.picture = number;
  const picture = currentPicture();
  const [x, y, width, height] = picture.cut ?? [0, 0, picture.width, picture.height];
  Object.assign(zoom, { width, height, fitting: true });
  byId("chooser").selectedIndex = number;
  byId("place").textContent = `${number + 1} of ${report.pictures.length}`;
  byId("previous").disabled = number === 0;
  byId("next").disabled = number === report.pictures.length - 1;
  byId("cut").hidden = !picture.cut;
  byId("cut").textContent =
    `${width} \u00d7 ${height} of ${picture.width} \u00d7 ${picture.height}, at (${x}, ${y}). ` +
    "Bytes, bits per pixel and all measures are those of the whole picture.";
  const missing = Object.entries(picture.missing).map(([name, why]) => `${name} could not hold this picture: ${why}`);
  byId("missing").hidden = !missing.length;
  byId("missing").textContent = missing.join("; ");
  table.mark(number);
  layStage();
  showLayers();
  if (seek) {
    byId("viewer").scrollIntoView({ block: "start" });
    divider.focus({ preventScroll: true });
  }
}

function turnTo(step) {
  const number = Math.min(Math.max(view.picture + step, 0), report.pictures.length - 1);
  if (number !== view.picture) {
    openPicture(number);
  }
}

function slideTo(x) {
  const box = stage.getBoundingClientRect();
  setDivide((x - box.left) / box.width);
}

function viewer() {
  if (!report.pictures.length) {
    byId("viewer").hidden = true;
    byId("table-title").closest("section").hidden = true;
    return;
  }
  const layers = report.pictures[0].layers;
  if (layers.length > 2) {
    Object.assign(view, { left: "ckbd", right: layers[2].name });
  }
  byId("chooser").append(...report.pictures.map((picture) => make("option", {}, picture.name)));
  byId("chooser").addEventListener("change", (event) => openPicture(event.target.selectedIndex));
  byId("previous").addEventListener("click", () => turnTo(-1));
  byId("next").addEventListener("click", () => turnTo(1));
  byId("larger").addEventListener("click", () => zoomStep(1));
  byId("smaller").addEventListener("click", () => zoomStep(-1));
  byId("actual").addEventListener("click", zoomActual);
  byId("whole").addEventListener("click", zoomFit);
  listenToPointers(slideTo);
  openPicture(0);
  let width = stage.clientWidth;
  new ResizeObserver(() => {
    if (width !== stage.clientWidth) {
      width = stage.clientWidth;
      layStage();
      setDivide(view.divide);
    }
  }).observe(stage);
}

viewer();
