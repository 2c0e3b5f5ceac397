// Where the picture lies on the stage. Lengths are CSS pixels; `scale` is how many of them a pixel of the picture has.

const zoom = { scale: 1, x: 0, y: 0, width: 1, height: 1, fitting: true };
const MOST = 16; // device pixels of a pixel
const SCALES = [1 / 8, 1 / 4, 1 / 2, 1, 2, 3, 4, 6, 8, 12, 16];
const stage = byId("stage");
const divider = byId("divider");

// Fewer device pixels than the picture has, or a whole number of them for each of its pixels.
function fittingScale(width, height) {
  const ratio = Math.min(width / zoom.width, height / zoom.height) * devicePixelRatio;
  return (ratio < 1 ? ratio : Math.min(Math.floor(ratio), MOST)) / devicePixelRatio;
}

// A stage of a height for this picture, but not so high that it would not be seen whole.
function layStage() {
  const most = Math.max(innerHeight * 0.74, 240);
  const scale = fittingScale(stage.clientWidth, most);
  stage.style.height = `${Math.max(Math.ceil(zoom.height * scale), 200)}px`;
  if (zoom.fitting) {
    zoom.scale = fittingScale(stage.clientWidth, stage.clientHeight);
  }
  place();
}

// The picture within the stage: never away from an edge that it could reach, in the middle where it reaches none.
function place() {
  const snap = (length) => Math.round(length * devicePixelRatio) / devicePixelRatio;
  const held = (at, size, room) => snap(size <= room ? (room - size) / 2 : Math.min(Math.max(at, room - size), 0));
  const [width, height] = [zoom.width * zoom.scale, zoom.height * zoom.scale];
  zoom.x = held(zoom.x, width, stage.clientWidth);
  zoom.y = held(zoom.y, height, stage.clientHeight);
  for (const img of stage.querySelectorAll("img")) {
    Object.assign(img.style, { left: `${zoom.x}px`, top: `${zoom.y}px`, width: `${width}px`, height: `${height}px` });
  }
  const device = zoom.scale * devicePixelRatio;
  stage.classList.toggle("sharp", device > 1);
  stage.classList.toggle("wide", width > stage.clientWidth + 1 || height > stage.clientHeight + 1);
  byId("scale").textContent = `${Math.round(device * 100)} %`;
}

// Changes the scale so that what is under a point of the stage stays there.
function zoomTo(scale, x = stage.clientWidth / 2, y = stage.clientHeight / 2) {
  const least = Math.min(fittingScale(stage.clientWidth, stage.clientHeight), 1 / devicePixelRatio);
  const next = Math.min(Math.max(scale, least), MOST / devicePixelRatio);
  zoom.x = x - ((x - zoom.x) / zoom.scale) * next;
  zoom.y = y - ((y - zoom.y) / zoom.scale) * next;
  zoom.scale = next;
  zoom.fitting = false;
  place();
}

function zoomStep(step) {
  const now = zoom.scale * devicePixelRatio;
  const next = step > 0 ? SCALES.find((one) => one > now * 1.01) : SCALES.findLast((one) => one < now * 0.99);
  zoomTo((next ?? now) / devicePixelRatio);
}

function zoomActual() {
  zoomTo(1 / devicePixelRatio);
}

function zoomFit() {
  zoom.fitting = true;
  layStage();
}

function pan(x, y) {
  zoom.x += x;
  zoom.y += y;
  place();
}

// The wheel, one pointer that moves the divider or the picture, and two that pinch. slide: moves the divider to a place
// in the window; of a picture that is seen whole, a pointer anywhere on the stage does so.
function listenToPointers(slide) {
  const held = new Map(); // where each pointer was, by its number
  let offset = 0; // from the pointer to the divider, so that taking hold of it moves nothing
  let mode = null;
  const isWide = () => stage.classList.contains("wide");

  stage.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      const amount = event.deltaY * (event.deltaMode === 1 ? 16 : 1) * (event.ctrlKey ? 5 : 1);
      const box = stage.getBoundingClientRect();
      zoomTo(zoom.scale * Math.exp(-amount * 0.0018), event.clientX - box.left, event.clientY - box.top);
    },
    { passive: false },
  );

  // Keys are for who has the focus, which a press on what cannot have it would take away.
  stage.addEventListener("mousedown", (event) => event.preventDefault());

  stage.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) {
      return;
    }
    stage.setPointerCapture(event.pointerId);
    held.set(event.pointerId, { x: event.clientX, y: event.clientY });
    divider.focus({ preventScroll: true });
    const isOn = divider.contains(event.target);
    const box = divider.getBoundingClientRect();
    offset = isOn ? box.left + box.width / 2 - event.clientX : 0;
    mode = held.size > 1 ? "pinch" : isOn || !isWide() ? "slide" : "pan";
    stage.classList.toggle("held", mode === "pan");
    if (mode === "slide" && event.pointerType !== "touch") {
      slide(event.clientX + offset); // a finger may be about to scroll
    }
  });

  stage.addEventListener("pointermove", (event) => {
    const before = held.get(event.pointerId);
    if (!before) {
      return;
    }
    const now = { x: event.clientX, y: event.clientY };
    if (mode === "pinch" && held.size === 2) {
      pinch(before, now, [...held].find(([id]) => id !== event.pointerId)[1]);
    } else if (mode === "pan") {
      pan(now.x - before.x, now.y - before.y);
    } else if (mode === "slide") {
      slide(now.x + offset);
    }
    held.set(event.pointerId, now);
  });

  for (const end of ["pointerup", "pointercancel"]) {
    stage.addEventListener(end, (event) => {
      held.delete(event.pointerId);
      mode = held.size === 1 && isWide() ? "pan" : null;
      stage.classList.toggle("held", mode === "pan");
    });
  }
}

// One of two pointers goes from a place to another.
function pinch(before, now, other) {
  const away = (one) => Math.max(Math.hypot(one.x - other.x, one.y - other.y), 1);
  const box = stage.getBoundingClientRect();
  pan((now.x - before.x) / 2, (now.y - before.y) / 2);
  zoomTo(zoom.scale * (away(now) / away(before)), (now.x + other.x) / 2 - box.left, (now.y + other.y) / 2 - box.top);
}
