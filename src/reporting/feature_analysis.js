// The feature analysis of one net: receptive fields, selective channels, Grad-CAM, first filters.
const className = (analysis, i) => i < 0 || i == null ? "none" : analysis.classes?.[i] ?? `class ${i}`;
function element(tag, text = "", ...children) {
  const created = document.createElement(tag);
  created.textContent = text; created.append(...children);
  return created;
}
function describe(canvas, label) { canvas.setAttribute("role", "img"); canvas.setAttribute("aria-label", label); }
// the receptive field of the middle unit as a square on the image
function receptiveFieldCanvas(image, [top, left, bottom, right]) {
  const canvas = document.createElement("canvas"), side = 132, scale = side / Math.max(image.width, image.height), margin = 14, size = side + 2 * margin;
  canvas.width = canvas.height = 2 * size; canvas.style.width = canvas.style.height = `${size}px`;
  const context = canvas.getContext("2d");
  context.scale(2, 2); context.imageSmoothingEnabled = false;
  context.drawImage(image, margin, margin, image.width * scale, image.height * scale);
  context.strokeStyle = "#D55E00"; context.lineWidth = 2.5;
  const [x0, y0, x1, y1] = [left, top, right, bottom].map(edge => Math.min(size - 2, Math.max(2, margin + edge * scale)));
  context.strokeRect(x0, y0, x1 - x0, y1 - y0);
  return canvas;
}
// size of the receptive field, linear probes, dead and duplicate channels, in lines
function stageFacts(stage, image) {
  const [top, left, bottom, right] = stage.field, height = bottom - top, width = right - left;
  const isLarger = width > Math.max(image.width, image.height);
  const lines = [`receptive field ${+height.toFixed(1)}×${+width.toFixed(1)} px` + (isLarger ? ", larger than the image" : "")];
  const titles = {class: "class: accuracy", position: "position: R²"};
  for (const [target, values] of Object.entries(stage.probes)) if (values) lines.push(`${titles[target]} ${values[0].toFixed(3)} (pixels ${values[1].toFixed(3)})`);
  const dead = stage.facts.filter(facts => facts[0] === 0).length, duplicates = stage.facts.filter(facts => facts[3] >= 0).length;
  return [...lines, `${stage.facts.length} channels: ${dead} dead, ${duplicates} duplicates`];
}
async function stageCard(net, name, stage, image) {
  const field = receptiveFieldCanvas(image, stage.field), card = element("div"), text = element("p");
  const [top, left, bottom, right] = stage.field;
  describe(field, `receptive field of the middle unit of ${name}: ${bottom - top} by ${right - left} pixels`);
  text.className = "soft"; text.append(...stageFacts(stage, image).flatMap(line => [line, document.createElement("br")]));
  card.className = "stage"; card.append(element("h3", name), element("div", "", field, text));
  if (stage.patches) card.append(await patchRows(net, name, stage));
  return card;
}
// a row per selective channel: its class, and the patches that activate it most
async function patchRows(net, name, stage) {
  const {shape: [channels, perChannel, c, h, w], pixels} = stage.patches, rows = element("div");
  const patches = await decodeImages(pixels, channels * perChannel, c, h, w);
  rows.className = "patches";
  stage.patches.channels.slice(0, 8).forEach((channel, i) => {
    const [, selectivity, preferred] = stage.facts[channel], row = element("div"), label = element("span");
    const preference = selectivity === null ? "" : `${className(net.analysis, preferred)} ${selectivity.toFixed(2)}`;
    label.append(element("b", `channel ${channel}`), document.createElement("br"), preference);
    row.append(label, ...patches.slice(i * perChannel, (i + 1) * perChannel).map((patch, j) => {
      const canvas = patch.cloneNode();
      canvas.getContext("2d").drawImage(patch, 0, 0);
      describe(canvas, `patch ${j + 1} for channel ${channel} of ${name}`);
      return canvas;
    }));
    rows.append(row);
  });
  return rows;
}
function gradCamFigure(analysis, maps, image, i) {
  const canvas = document.createElement("canvas"), figure = element("figure", "", canvas);
  const prediction = analysis.predictions?.[i], label = analysis.labels?.[i];
  canvas.width = canvas.height = 224;
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false; drawContained(context, image, 0, 0, 224);
  context.imageSmoothingEnabled = true; drawContained(context, drawMap(maps, i, 0, [0, 1], "overlay"), 0, 0, 224);
  const caption = element("figcaption", className(analysis, prediction));
  if (label >= 0 && prediction !== label) caption.append(document.createElement("br"), element("span", `true: ${className(analysis, label)}`));
  describe(canvas, `image ${i}: Grad-CAM for the predicted class ${className(analysis, prediction)}`);
  figure.append(caption);
  return figure;
}
async function drawFilters({shape, maps: text}) {
  const [k, c, h, w] = shape, maps = await decodeMaps(text, shape), largest = Math.max(...maps.limits.map(Math.abs));
  const colourPicture = filter => {
    const picture = new ImageData(w, h);
    for (let pixel = 0; pixel < h * w; pixel++) picture.data.set([0, 1, 2].map(channel => 127.5 * (1 + valueAt(maps, filter, channel, pixel) / largest)).concat(255), 4 * pixel);
    return toCanvas(picture);
  };
  const filters = Array.from({length: Math.min(k, 64)}, (_, i) => i);
  const drawers = filters.map(i => (context, left, top, side) => drawContained(context, c === 3 ? colourPicture(i) : drawMap(maps, i, 0, [-largest, largest], "change"), left, top, side));
  drawTiles(byId("filters"), drawers, Math.max(8, Math.min(k, Math.floor(byId("first-layer").clientWidth / 56))), -1, filters.map(String));
}
let analysisVisible = false, analysisRequest = null;
async function drawAnalysis() {
  const net = mapData.nets[state.net], analysis = net?.analysis ?? {};
  if (!analysisVisible || !analysis.stages) return;
  const request = analysisRequest = {}, images = await imagesOf(net), image = images[Math.min(state.image, images.length - 1)];
  const stageCards = await Promise.all(Object.entries(analysis.stages).map(([name, stage]) => stageCard(net, name, stage, image)));
  if (analysisRequest !== request) return;  // a newer request came meanwhile
  byId("stages").replaceChildren(...stageCards);
  const maps = analysis.cam && await decodeMaps(analysis.cam.maps, analysis.cam.shape);
  const figures = maps ? images.slice(0, maps.n).map((picture, i) => gradCamFigure(analysis, maps, picture, i)) : [];
  byId("cam").replaceChildren(...(figures.length ? figures : [element("p", "This net has no classes, or no stage with positions.")]));
  byId("first-layer").hidden = !analysis.filters;
  if (analysis.filters) await drawFilters(analysis.filters);
}
function decodeAnalysis({stages, cam, filters}) {
  for (const {patches} of Object.values(stages)) if (patches) decodeImages(patches.pixels, patches.shape[0] * patches.shape[1], ...patches.shape.slice(2));
  if (cam) decodeMaps(cam.maps, cam.shape);
  if (filters) decodeMaps(filters.maps, filters.shape);
}
function drawForPrint() {
  cards.forEach(drawCard);
  analysisVisible = true;
  drawAnalysis();
}
if (mapData.nets.some(hasAnalysis)) {
  mapData.nets.forEach((net, i) => { if (hasAnalysis(net)) byId("net").append(new Option(net.name, i)); });
  state.net = +byId("net").value;
  byId("net").addEventListener("change", () => update({net: +byId("net").value}));
  allLoaded.then(() => decodeAnalysis(mapData.nets[state.net].analysis));
  new IntersectionObserver(([entry], observer) => {
    if (entry.isIntersecting) { analysisVisible = true; drawAnalysis(); observer.disconnect(); }
  }, {rootMargin: "400px"}).observe(byId("analysis"));
}
