// A row a picture, by one measure for all codecs at a time. Columns sort; a row opens its picture.

function tables() {
  const host = byId("table");
  const names = [...new Set(report.pictures.flatMap((picture) => picture.layers.slice(1).map((layer) => layer.name)))];
  const measures = [
    ["bytes", "bytes"],
    ["bpp", "bits per pixel"],
    ...report.panels.map((panel) => [panel.metric, panel.label]),
  ];
  let measure = report.panels[0].metric;
  let sorted = { column: null, down: false };
  let current = -1;

  function layerOf(picture, name) {
    return picture.layers.find((layer) => layer.name === name);
  }

  // By the chosen measure; null where it was not measured.
  function valueFor(picture, name) {
    const layer = layerOf(picture, name);
    if (!layer) {
      return null;
    }
    return (measure === "bytes" || measure === "bpp" ? layer[measure] : layer.values[measure]) ?? null;
  }

  function textFor(value) {
    if (measure === "bytes") {
      return whole(value);
    }
    return number(value, measure === "bpp" ? 3 : report.panels.find((panel) => panel.metric === measure).digits);
  }

  // [heading, what is sorted by] of each column; the first is the picture's name.
  function columns() {
    const own = (key) => (picture) => picture.layers[1][key];
    const fixed = [["picture", (picture) => picture.name], ["pixels", (picture) => picture.width * picture.height]];
    if (measure !== "bytes" && measure !== "bpp") {
      fixed.push(["bytes", own("bytes")], ["bpp", own("bpp")]);
    }
    return [...fixed, ...names.map((name) => [name, (picture) => valueFor(picture, name)])];
  }

  function ordered(all) {
    const order = report.pictures.map((_, i) => i);
    const column = all.find(([heading]) => heading === sorted.column);
    if (!column) {
      return order;
    }
    const by = order.map((i) => column[1](report.pictures[i]));
    const compare = (a, b) => (typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : a - b);
    return order.sort((i, j) => {
      if (by[i] === null || by[j] === null) {
        return (by[i] === null) - (by[j] === null); // what is missing stays at the end
      }
      return compare(by[i], by[j]) * (sorted.down ? -1 : 1) || i - j;
    });
  }

  function head(heading) {
    const button = make("button", { type: "button" }, heading);
    const cell = make("th", { scope: "col", "data-column": heading }, button);
    if (heading === sorted.column) {
      cell.setAttribute("aria-sort", sorted.down ? "descending" : "ascending");
    }
    button.addEventListener("click", () => {
      sorted = { column: heading, down: heading === sorted.column && !sorted.down };
      draw();
      host.querySelector(`[data-column="${heading}"] button`).focus();
    });
    return cell;
  }

  function row(i) {
    const picture = report.pictures[i];
    const own = picture.layers[1];
    const open = make("button", { type: "button", title: picture.name }, picture.name);
    const cells = [make("td", {}, `${picture.width} \u00d7 ${picture.height}`)];
    if (measure !== "bytes" && measure !== "bpp") {
      cells.push(make("td", {}, whole(own.bytes)), make("td", {}, number(own.bpp, 3)));
    }
    const values = names.map((name) => valueFor(picture, name));
    const most = Math.max(...values.map((value) => value ?? -Infinity));
    const isQuality = measure !== "bytes" && measure !== "bpp";
    names.forEach((name, n) => {
      const best = isQuality && names.length > 1 && values[n] === most;
      const over = values[n] !== null && !layerOf(picture, name).fits;
      const cell = make("td", best ? { class: "best" } : {}, textFor(values[n]));
      if (over) {
        cell.prepend(make("span", { class: "warn", title: "more bytes than ckbd" }, "* "));
      }
      cells.push(cell);
    });
    const made = make("tr", { "data-picture": i }, make("th", { scope: "row" }, open), ...cells);
    made.classList.toggle("current", i === current);
    made.addEventListener("click", () => openPicture(i, true));
    return made;
  }

  function draw() {
    const all = columns();
    const rows = ordered(all).map(row);
    host.replaceChildren(
      make("thead", {}, make("tr", {}, ...all.map(([heading]) => head(heading)))),
      make("tbody", {}, ...rows),
    );
  }

  function note() {
    const over = report.pictures.some((picture) => picture.layers.some((layer) => !layer.fits));
    const text = [
      `ckbd at quality ${report.quality}`,
      names.length > 1 ? ", each rival's largest file of at most as many bytes. The best of a row is bold." : ".",
      over ? " *: even the rival's smallest file has more bytes than ckbd's." : "",
      " A row opens its picture above.",
    ];
    byId("table-note").textContent = text.join("");
  }

  choices(byId("measures"), "measure of the table", measures, measure, (chosen) => {
    measure = chosen;
    draw();
  });
  draw();
  note();
  return {
    mark(i) {
      current = i;
      for (const one of host.querySelectorAll("tbody tr")) {
        one.classList.toggle("current", Number(one.dataset.picture) === i);
      }
    },
  };
}

const table = tables();
