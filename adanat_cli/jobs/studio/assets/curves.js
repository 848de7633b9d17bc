// The four values of every step as small plots. One series with a table can be changed: by dragging its points, by the
// arrow keys on them, or by the numbers below. props.value is
// {series: [{name, labels: [n], samples: [n][T][4], table: [T][4]}], editable, note}; a change sets it and triggers
// "input". The table is the mean of the samples, or the one that is chosen.
const NAMES = ["re-masking ratio", "sampling temperature", "re-masking temperature", "guidance scale"];
const HEIGHT = 150, LEFT = 30, RIGHT = 10, TOP = 10, BOTTOM = 24;
const LEAST = [0, 0.01, 0, 0], MOST = [0.999, Infinity, Infinity, Infinity];

const svg = (tag, attributes, parent) => {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  parent.appendChild(node);
  return node;
};
const html = (tag, attributes, parent, text) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  parent.appendChild(node);
  return node;
};
const short = (number) => String(Math.round(number * 1e4) / 1e4);
// What the last step masks again is never used.
const used = (action, steps) => (action === 0 || action === 2 ? Math.max(1, steps - 1) : steps);

function nice(most) {
  const unit = 10 ** Math.floor(Math.log10(most));
  return [1, 1.5, 2, 3, 4, 5, 8, 10].map((factor) => factor * unit).find((limit) => limit >= most * 1.02);
}

function rows(series) {
  return [...(series.table.length ? [series.table] : []), ...series.samples];
}

function limits(value, action) {
  if (action === 0) return [0, 1];
  const all = value.series.flatMap(rows).flatMap((table) => table.slice(0, used(action, table.length)).map((row) => row[action]));
  return [Math.min(0, ...all), nice(Math.max(action === 1 ? 1.5 : 1, ...all))];
}

function plot(box, value, action) {
  const WIDTH = Math.max(170, box.clientWidth || 220); // pixels, so that letters have one size everywhere
  const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${NAMES[action]} by step` }, box);
  const steps = Math.max(...value.series.flatMap(rows).map((table) => table.length));
  const [low, high] = limits(value, action);
  const x = (step) => LEFT + ((WIDTH - LEFT - RIGHT) * (step + 0.5)) / steps;
  const y = (number) => HEIGHT - BOTTOM - ((HEIGHT - TOP - BOTTOM) * (number - low)) / (high - low);
  for (const share of [0, 0.5, 1]) {
    const number = low + share * (high - low);
    svg("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: y(number), y2: y(number) }, picture);
    svg("text", { class: "tick", x: LEFT - 6, y: y(number) + 4, "text-anchor": "end" }, picture).textContent = short(number);
  }
  const every = Math.ceil(steps / 8);
  for (let step = 0; step < steps; step += every)
    svg("text", { class: "tick", x: x(step), y: HEIGHT - 7, "text-anchor": "middle" }, picture).textContent = step + 1;
  const line = (table, kind) => {
    const shown = table.slice(0, used(action, table.length));
    const points = shown.map((row, step) => `${x(step)},${y(row[action])}`).join(" ");
    if (shown.length === 1 && kind !== "handles") svg("circle", { class: kind, cx: x(0), cy: y(shown[0][action]), r: 2 }, picture);
    return svg("polyline", { class: kind, points }, picture);
  };
  value.series.forEach((series, place) => {
    for (const table of series.samples) line(table, `sample series-${place}`);
    if (series.table.length) line(series.table, `mean series-${place}`);
  });
  return { picture, x, y, low, high, action };
}

function handles(drawn, value, commit) {
  const { picture, x, y, low, high, action } = drawn;
  const table = value.series[0].table, path = picture.querySelector(".mean");
  const set = (step, number, handle) => {
    table[step][action] = Math.round(Math.min(MOST[action], Math.max(LEAST[action], number)) * 1e4) / 1e4;
    handle.setAttribute("cy", y(table[step][action]));
    handle.setAttribute("aria-valuenow", table[step][action]);
    handle.querySelector("title").textContent = short(table[step][action]);
    path.setAttribute("points", table.slice(0, used(action, table.length)).map((row, at) => `${x(at)},${y(row[action])}`).join(" "));
  };
  for (let step = 0; step < used(action, table.length); step++) {
    const handle = svg("circle", {
      class: "handle", cx: x(step), cy: y(table[step][action]), r: table.length > 16 ? 4 : 6, tabindex: 0, role: "slider",
      "aria-label": `${NAMES[action]}, step ${step + 1}`, "aria-valuenow": table[step][action],
      "aria-valuemin": low, "aria-valuemax": high, "data-action": action, "data-step": step,
    }, picture);
    svg("title", {}, handle).textContent = short(table[step][action]);
    const move = (event) => {
      const frame = picture.getBoundingClientRect();
      const height = ((event.clientY - frame.top) / frame.height) * HEIGHT;
      set(step, low + ((HEIGHT - BOTTOM - height) / (HEIGHT - TOP - BOTTOM)) * (high - low), handle);
    };
    handle.addEventListener("pointerdown", (event) => {
      event.preventDefault();
      handle.setPointerCapture(event.pointerId);
      handle.addEventListener("pointermove", move);
      const end = () => {
        handle.removeEventListener("pointermove", move);
        commit();
      };
      handle.addEventListener("pointerup", end, { once: true });
    });
    handle.addEventListener("keydown", (event) => {
      const by = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1 }[event.key];
      if (!by) return;
      event.preventDefault();
      set(step, table[step][action] + (by * (high - low)) / 50, handle);
      commit(`[data-action="${action}"][data-step="${step}"]`);
    });
  }
}

// Which image's values the thick line shows, and a change begins with.
function choice(parent, value) {
  const series = value.series[0], label = html("label", { class: "choice" }, parent, "Thick line, with points to drag: ");
  const select = html("select", {}, label);
  html("option", { value: "" }, select, "mean of all images");
  series.samples.forEach((_, index) => html("option", { value: index }, select, `image ${index + 1}, ${series.labels[index]}`));
  select.value = series.chosen ?? "";
  select.addEventListener("change", () => {
    const changed = JSON.parse(JSON.stringify(value)), one = changed.series[0];
    one.mean ??= one.table;
    one.table = select.value === "" ? one.mean : JSON.parse(JSON.stringify(one.samples[select.value]));
    one.chosen = select.value;
    props.value = changed;
    draw();
    element.querySelector(".choice select").focus();
  });
}

function numbers(parent, value, commit) {
  const folded = html("details", { class: "numbers" }, parent);
  folded.open = element.dataset.open === "1";
  folded.addEventListener("toggle", () => { element.dataset.open = folded.open ? "1" : "0"; });
  html("summary", {}, folded, "As numbers");
  const table = html("table", {}, html("div", { class: "scroll" }, folded));
  const head = html("tr", {}, table);
  html("th", {}, head, "step");
  NAMES.forEach((name) => html("th", {}, head, name));
  value.series[0].table.forEach((row, step, all) => {
    const line = html("tr", {}, table);
    html("th", {}, line, step + 1);
    row.forEach((number, action) => {
      const cell = html("td", {}, line);
      if (step >= used(action, all.length)) return html("span", { class: "unused" }, cell, "unused");
      const field = html("input", { type: "number", step: "any", value: short(number), "aria-label": `${NAMES[action]}, step ${step + 1}` }, cell);
      field.addEventListener("change", () => {
        if (field.value === "") { field.value = short(row[action]); return; }
        row[action] = Number(field.value);
        commit();
      });
    });
  });
}

function draw() {
  const root = element.querySelector(".curves"), value = props.value;
  if (!root) return;
  root.replaceChildren();
  if (!value) return;
  const editable = value.editable && value.series.length && value.series[0].table.length;
  if (value.series.length > 1) {
    const legend = html("div", { class: "legend" }, root);
    value.series.forEach((series, place) => {
      const entry = html("span", {}, legend);
      html("i", { class: `swatch series-${place}` }, entry);
      entry.append(series.name);
    });
  }
  const commit = (focus) => {
    const changed = JSON.parse(JSON.stringify(value));
    changed.series[0].samples = [];
    changed.edited = true;
    changed.note = "Changed by hand: draw to see the effect. The values are the same for all images.";
    props.value = changed;
    draw();
    if (focus) element.querySelector(focus)?.focus();
    trigger("input");
  };
  if (editable && value.series[0].samples.length) choice(root, value);
  if (value.series.length) {
    const plots = html("div", { class: "plots" }, root);
    const boxes = NAMES.map((name) => {
      const box = html("div", { class: "plot" }, plots);
      html("div", { class: "plot-title" }, box, name);
      return box;
    });
    boxes.forEach((box, action) => {
      const drawn = plot(box, value, action);
      if (editable) handles(drawn, value, commit);
    });
  }
  if (value.note) html("p", { class: "note" }, root, value.note);
  if (editable) numbers(root, value, commit);
}

watch("value", draw);
draw();
let known = 0;
new ResizeObserver(() => {
  const width = element.clientWidth;
  if (width && width !== known && !element.querySelector(".handle:active")) {
    known = width;
    draw();
  }
}).observe(element);
