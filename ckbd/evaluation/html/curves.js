// Curves over a logarithmic rate, and what each rival's bytes are to ckbd's.

const SHAPES = {
  o: "M-1 0a1 1 0 1 0 2 0a1 1 0 1 0-2 0z",
  v: "M-1.1-.8H1.1L0 1.1z",
  "^": "M-1.1.8H1.1L0-1.1z",
  s: "M-.9-.9H.9V.9H-.9z",
  D: "M0-1.25 1.25 0 0 1.25-1.25 0z",
  P: "M-.45-1.2H.45V-.45H1.2V.45H.45V1.2H-.45V.45H-1.2V-.45H-.45z",
};
const RATES = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20];

function marker(series, x, y, size) {
  return drawn("path", {
    d: SHAPES[series.marker],
    fill: colourOf(series),
    transform: `translate(${x.toFixed(2)} ${y.toFixed(2)}) scale(${size})`,
  });
}

function steps(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
  const made = [];
  for (let i = Math.ceil(low / step); i * step <= high; i += 1) {
    made.push(Number((i * step).toPrecision(12)));
  }
  return made;
}

function curves() {
  const host = byId("chart");
  const tip = byId("tip");
  const hidden = new Set();
  let panel = report.panels[0];
  let spots = []; // every point that is seen: {series, point, x, y}
  let at = null;

  function draw() {
    const width = Math.max(host.clientWidth, 260);
    const height = Math.round(Math.min(Math.max(width * 0.62, 250), 430));
    const [left, right, top, bottom] = [38, 10, 26, 40];
    const all = report.series.flatMap((series) => series.points[panel.metric]);
    const svg = drawn("svg", { width, height, viewBox: `0 0 ${width} ${height}`, tabindex: 0, role: "group" });
    svg.setAttribute("aria-label", `${panel.axis} over bits per pixel. Arrow keys go from point to point.`);
    host.querySelector("svg")?.remove();
    host.prepend(svg);
    spots = [];
    point(null);
    if (!all.length) {
      svg.append(drawn("text", { x: left, y: 60 }, "not measured"));
      return;
    }
    const values = all.map((one) => one[2]);
    const spread = Math.max(...values) - Math.min(...values) || 1;
    const [low, high] = [Math.min(...values) - spread * 0.04, Math.max(...values) + spread * 0.04];
    const rates = all.map((one) => one[1]);
    const [first, last] = [Math.log(Math.min(...rates) / 1.12), Math.log(Math.max(...rates) * 1.12)];
    const x = (bpp) => left + ((Math.log(bpp) - first) / (last - first)) * (width - left - right);
    const y = (value) => height - bottom - ((value - low) / (high - low)) * (height - top - bottom);
    const inside = (bpp) => Math.log(bpp) >= first && Math.log(bpp) <= last;

    for (const power of [0.01, 0.1, 1, 10]) {
      for (let i = 1; i < 10; i += 1) {
        if (inside(i * power)) {
          svg.append(line(x(i * power), top, x(i * power), height - bottom, i === 1));
        }
      }
    }
    for (const bpp of RATES.filter(inside)) {
      svg.append(drawn("text", { x: x(bpp), y: height - bottom + 17, "text-anchor": "middle" }, String(bpp)));
    }
    for (const value of steps(low, high, height / 60)) {
      svg.append(line(left, y(value), width - right, y(value), false));
      svg.append(drawn("text", { x: left - 7, y: y(value) + 4, "text-anchor": "end" }, String(value).replace("-", "\u2212")));
    }
    svg.append(drawn("text", { x: 0, y: 12 }, panel.axis));
    const below = { x: width - right, y: height - 4, "text-anchor": "end" };
    svg.append(drawn("text", below, "bits per pixel, logarithmic"));

    const seen = report.series.filter((series) => !hidden.has(series.name));
    for (const series of [...seen].reverse()) {
      const own = series.points[panel.metric].map((one) => ({ series, point: one, x: x(one[1]), y: y(one[2]) }));
      const path = own.map((spot, i) => `${i ? "L" : "M"}${spot.x.toFixed(2)} ${spot.y.toFixed(2)}`).join("");
      const isOwn = series.name === "ckbd";
      const curve = drawn("path", { class: isOwn ? "curve own" : "curve", d: path });
      curve.style.stroke = colourOf(series);
      svg.append(curve, ...own.map((spot) => marker(series, spot.x, spot.y, isOwn ? 4.2 : 3.6)));
      spots.unshift(...own);
    }
    listen(svg);
  }

  function line(x1, y1, x2, y2, strong) {
    return drawn("line", { x1, y1, x2, y2, class: strong ? "grid strong" : "grid" });
  }

  function listen(svg) {
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      const away = (spot) => Math.hypot(spot.x - (event.clientX - box.left), spot.y - (event.clientY - box.top));
      const nearest = spots.reduce((best, spot) => (!best || away(spot) < away(best) ? spot : best), null);
      point(nearest);
    });
    svg.addEventListener("pointerleave", () => point(null));
    svg.addEventListener("blur", () => point(null));
    svg.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      const other = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (event.key === "Escape") {
        point(null);
      } else if ((step || other) && spots.length) {
        event.preventDefault();
        point(at ? neighbour(step ?? 0, other ?? 0) : spots[0]);
      }
    });
  }

  // The next point of the curve, or of the next curve the one of the nearest rate.
  function neighbour(step, other) {
    const names = [...new Set(spots.map((spot) => spot.series.name))];
    const name = names[(names.indexOf(at.series.name) + other + names.length) % names.length];
    const curve = spots.filter((spot) => spot.series.name === name);
    if (other) {
      return curve.reduce((best, spot) => (Math.abs(spot.x - at.x) < Math.abs(best.x - at.x) ? spot : best));
    }
    return curve[Math.min(Math.max(curve.indexOf(at) + step, 0), curve.length - 1)];
  }

  function point(spot) {
    at = spot;
    host.querySelector(".ring")?.remove();
    tip.hidden = !spot;
    if (!spot) {
      return;
    }
    const [setting, bpp, value, measured] = spot.point;
    const text = panel.metric === "ms_ssim" ? `${number(measured, 4)} (${number(value, 2)} dB)` : valueOf(panel, value);
    const unit = spot.series.setting === "rate" ? " bpp" : "";
    const lines = [`${spot.series.setting} ${Number(setting.toPrecision(3))}${unit}`, `${number(bpp, 3)} bpp`, `${panel.label} ${text}`];
    tip.replaceChildren(make("b", {}, spot.series.name), ...lines.flatMap((one) => [one, make("br")]));
    host.querySelector("svg").append(drawn("circle", { class: "ring", cx: spot.x, cy: spot.y, r: 8 }));
    const beyond = spot.x + 16 + tip.offsetWidth > host.clientWidth;
    tip.style.left = `${Math.max(beyond ? spot.x - 16 - tip.offsetWidth : spot.x + 16, 0)}px`;
    tip.style.top = `${Math.max(spot.y - tip.offsetHeight / 2, 0)}px`;
  }

  function legend() {
    const buttons = report.series.map((series) => {
      const stroke = drawn("line", { x1: 0, y1: 6, x2: 22, y2: 6, "stroke-width": 2 });
      stroke.style.stroke = colourOf(series);
      const sign = drawn("svg", { width: 22, height: 12, "aria-hidden": true }, stroke, marker(series, 11, 6, 4));
      const button = make("button", { type: "button", "aria-pressed": true }, sign, series.name);
      button.addEventListener("click", () => {
        const gone = hidden.delete(series.name) ? false : Boolean(hidden.add(series.name));
        button.setAttribute("aria-pressed", !gone);
        draw();
      });
      return button;
    });
    byId("legend").replaceChildren(...buttons);
  }

  function savings() {
    const host = byId("savings");
    if (!panel.bd.length) {
      host.replaceChildren(make("p", { class: "about" }, "No rivals were measured."));
      return;
    }
    const rows = panel.bd.map(([name, percent, rates]) => {
      const sign = percent > 0 ? "+" : "";
      const cell = make("td", percent < 0 ? { class: "good" } : {}, percent === null ? ABSENT : `${sign}${number(percent, 1)} %`);
      const range = rates ? `${number(rates[0], 2)} \u2026 ${number(rates[1], 2)}` : ABSENT;
      return make("tr", {}, make("th", { scope: "row" }, name), cell, make("td", {}, range));
    });
    const heads = ["against", "BD-rate", "over bpp"].map((text) => make("th", { scope: "col" }, text));
    const caption = make("caption", {}, `Bytes of ckbd at equal ${panel.label}`);
    const table = make("table", {}, caption, make("thead", {}, make("tr", {}, ...heads)), make("tbody", {}, ...rows));
    const note =
      "Negative: ckbd needs fewer bytes. The mean over the qualities that both reach, at those rates of the rival." +
      (panel.bd.some(([name]) => name === "jpeg-best") ? " jpeg-best is the better of both JPEGs at each quality." : "");
    host.replaceChildren(table, make("p", { class: "about" }, note));
  }

  const items = report.panels.map((one) => [one.metric, one.label]);
  choices(byId("metrics"), "measure of the curves", items, panel.metric, (metric) => {
    panel = report.panels.find((one) => one.metric === metric);
    draw();
    savings();
  });
  byId("caption").textContent = `Means over ${counted(report.count, "picture")}, one point a setting.`;
  legend();
  savings();
  let width = 0; // drawing changes the height, which is not to draw again
  new ResizeObserver(() => {
    if (width !== host.clientWidth) {
      width = host.clientWidth;
      draw();
    }
  }).observe(host);
}

curves();
