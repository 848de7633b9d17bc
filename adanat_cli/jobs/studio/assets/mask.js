// A picture on which a mask is painted, or a box is drawn. props.value is
// {source, width, height, box, mask}: the picture to show as a data URL, its true size in pixels, the box as
// [x, y, width, height] in these, and the mask as the data URL of a PNG of the shown size, white where painted.
const root = element.querySelector(".masking");

function draw() {
  const target = element.querySelector(".masking"), value = props.value;
  if (!target || target.dataset.source === (value?.source ?? "") ) return;
  target.dataset.source = value?.source ?? "";
  target.replaceChildren();
  if (!value?.source) return;
  const tools = document.createElement("div"), stage = document.createElement("div");
  tools.className = "tools";
  stage.className = "stage";
  const picture = new Image(), canvas = document.createElement("canvas"), shown = document.createElement("div");
  shown.className = "box";
  picture.alt = "the image to edit";
  canvas.setAttribute("aria-label", "paint what to draw anew");
  picture.addEventListener("load", () => { canvas.width = picture.naturalWidth; canvas.height = picture.naturalHeight; });
  picture.src = value.source;
  stage.append(picture, canvas, shown);
  let tool = "box", start = null, painted = false;
  const size = document.createElement("input");
  const buttons = {};
  for (const [name, words] of [["box", "Box"], ["brush", "Brush"], ["clear", "Clear"]]) {
    const button = buttons[name] = document.createElement("button");
    button.type = "button";
    button.textContent = words;
    button.addEventListener("click", () => (name === "clear" ? clear() : choose(name)));
    tools.append(button);
  }
  Object.assign(size, { type: "range", min: 2, max: 40, value: 14, title: "width of the brush, in percent" });
  size.setAttribute("aria-label", "width of the brush");
  tools.append(size);
  target.append(tools, stage);
  const choose = (name) => {
    tool = name;
    for (const key of ["box", "brush"]) buttons[key].setAttribute("aria-pressed", key === name);
    size.style.display = name === "brush" ? "" : "none";
  };
  const publish = (change) => {
    props.value = { ...props.value, ...change };
    trigger("input");
  };
  const clear = () => {
    canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
    shown.style.display = "none";
    painted = false;
    publish({ box: null, mask: "" });
  };
  const place = (event) => {
    const frame = canvas.getBoundingClientRect();
    const across = Math.min(1, Math.max(0, (event.clientX - frame.left) / frame.width));
    return [across, Math.min(1, Math.max(0, (event.clientY - frame.top) / frame.height))];
  };
  const brush = ([across, down], from) => {
    const pen = canvas.getContext("2d");
    pen.strokeStyle = "rgb(255, 255, 255)";
    pen.lineCap = pen.lineJoin = "round";
    pen.lineWidth = Math.max(1, (size.value / 100) * Math.min(canvas.width, canvas.height));
    pen.beginPath();
    pen.moveTo(from[0] * canvas.width, from[1] * canvas.height);
    pen.lineTo(across * canvas.width, down * canvas.height + 0.01);
    pen.stroke();
    painted = true;
  };
  const boxed = (to) => {
    const [left, right] = [start[0], to[0]].sort((a, b) => a - b), [top, bottom] = [start[1], to[1]].sort((a, b) => a - b);
    const x = Math.floor(left * value.width), y = Math.floor(top * value.height);
    const width = Math.min(value.width, Math.ceil(right * value.width)) - x, height = Math.min(value.height, Math.ceil(bottom * value.height)) - y;
    Object.assign(shown.style, {
      display: "block", left: `${(100 * x) / value.width}%`, top: `${(100 * y) / value.height}%`,
      width: `${(100 * width) / value.width}%`, height: `${(100 * height) / value.height}%`,
    });
    return width > 0 && height > 0 ? [x, y, width, height] : null;
  };
  let last = null;
  canvas.addEventListener("pointerdown", (event) => {
    event.preventDefault();
    canvas.setPointerCapture(event.pointerId);
    start = last = place(event);
    if (tool === "brush") brush(start, start);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!start) return;
    const to = place(event);
    if (tool === "brush") brush(to, last);
    else boxed(to);
    last = to;
  });
  canvas.addEventListener("pointerup", (event) => {
    if (!start) return;
    const box = tool === "box" ? boxed(place(event)) : null;
    start = null;
    if (tool === "box") publish({ box });
    else if (painted) {
      const black = document.createElement("canvas");
      Object.assign(black, { width: canvas.width, height: canvas.height });
      const pen = black.getContext("2d");
      pen.fillRect(0, 0, black.width, black.height);
      pen.drawImage(canvas, 0, 0);
      publish({ mask: black.toDataURL("image/png") });
    }
  });
  choose("box");
}

watch("value", draw);
draw();
