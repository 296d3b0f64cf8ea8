// One net, level by level: what its stages see, which channels are selective and for what, where its answer comes from.
const inner = () => atlas.nets[look.net]?.inside ?? {};
const className = (inside, i) => i < 0 || i == null ? "none" : inside.classes?.[i] ?? `class ${i}`;
function element(tag, words = "", ...children) {
  const made = document.createElement(tag);
  made.textContent = words; made.append(...children);
  return made;
}
async function patchPictures({shape: [m, b, c, f, g], pixels}) {
  if (!unpacked.has(pixels)) unpacked.set(pixels, inflated(pixels).then(buffer => {
    const source = new Uint8Array(buffer);
    return Array.from({length: m * b}, (_, i) => coloured(source, i, c, f, g));
  }));
  return unpacked.get(pixels);
}
function square(image, [top, left, bottom, right]) {  // what the middle unit sees, on the image
  const canvas = document.createElement("canvas"), side = 132, scale = side / Math.max(image.width, image.height), edge = 14;
  canvas.width = canvas.height = (side + 2 * edge) * 2; canvas.style.width = canvas.style.height = `${side + 2 * edge}px`;
  const pen = canvas.getContext("2d");
  pen.scale(2, 2); pen.imageSmoothingEnabled = false;
  pen.drawImage(image, edge, edge, image.width * scale, image.height * scale);
  pen.strokeStyle = "#D55E00"; pen.lineWidth = 2.5;
  const [x, y, x1, y1] = [left, top, right, bottom].map(one => Math.min(side + 2 * edge - 2, Math.max(2, edge + one * scale)));
  pen.strokeRect(x, y, x1 - x, y1 - y);
  return canvas;
}
async function level(net, stage, one, image) {
  const [top, left, bottom, right] = one.field, across = right - left, wide = Math.max(image.width, image.height);
  const seen = square(image, one.field), card = element("div"), picture = element("div", "", seen), facts = element("p");
  seen.setAttribute("role", "img");
  seen.setAttribute("aria-label", `the middle unit of ${stage} sees ${bottom - top} by ${across} pixels`);
  const said = [`sees ${+(bottom - top).toFixed(1)}×${+across.toFixed(1)} px` + (across > wide ? ", more than the image" : "")];
  const words = {what: "what: accuracy", where: "where: R²"};
  for (const [word, values] of Object.entries(one.probes)) if (values) said.push(`${words[word]} ${values[0].toFixed(3)} (pixels ${values[1].toFixed(3)})`);
  const dead = one.facts.filter(row => row[0] === 0).length, copies = one.facts.filter(row => row[3] >= 0).length;
  said.push(`${one.facts.length} channels: ${dead} dead, ${copies} repeat another`);
  facts.className = "soft"; facts.append(...said.flatMap(words => [words, document.createElement("br")]));
  picture.append(facts); card.className = "level"; card.append(element("h3", stage), picture);
  if (one.patches) {
    const pictures = await patchPictures(one.patches), rows = element("div"), b = one.patches.shape[1];
    rows.className = "patches";
    one.patches.channels.slice(0, 8).forEach((k, i) => {
      const [fires, selectivity, best] = one.facts[k], line = element("div"), about = element("span");
      about.append(element("b", `channel ${k}`), document.createElement("br"), selectivity === null ? "" : `${className(net.inside, best)} ${selectivity.toFixed(2)}`);
      line.append(about, ...pictures.slice(i * b, (i + 1) * b).map((patch, j) => {
        const canvas = patch.cloneNode();
        canvas.getContext("2d").drawImage(patch, 0, 0);
        canvas.setAttribute("role", "img"); canvas.setAttribute("aria-label", `patch ${j + 1} for channel ${k} of ${stage}`);
        return canvas;
      }));
      rows.append(line);
    });
    card.append(rows);
  }
  return card;
}
let drawn = {};
async function drawInside() {
  const inside = inner(), net = atlas.nets[look.net];
  if (part("inside").hidden || !insideSeen || !inside.stages) return;
  const image = look.image, turn = drawn.turn = {};
  const images = await unpackedImages(net.images), input = images[Math.min(image, images.length - 1)];
  const cards = await Promise.all(Object.entries(inside.stages).map(([stage, one]) => level(net, stage, one, input)));
  if (drawn.turn !== turn) return;
  part("levels").replaceChildren(...cards);
  const figures = [];
  if (inside.cam) {
    const maps = await unpack(inside.cam.maps, inside.cam.shape);
    images.slice(0, maps.n).forEach((one, i) => {
      const canvas = document.createElement("canvas"), figure = element("figure", "", canvas), answer = inside.answers?.[i], label = inside.labels?.[i];
      canvas.width = canvas.height = 224;
      const pen = canvas.getContext("2d");
      pen.imageSmoothingEnabled = false; fit(pen, one, 0, 0, 224);
      pen.imageSmoothingEnabled = true; fit(pen, tile(maps, i, 0, [0, 1], "veil"), 0, 0, 224);
      const caption = element("figcaption", className(inside, answer));
      if (label >= 0 && answer !== label) caption.append(document.createElement("br"), element("span", `is ${className(inside, label)}`));
      canvas.setAttribute("role", "img"); canvas.setAttribute("aria-label", `image ${i}: where the answer ${className(inside, answer)} comes from`);
      figure.append(caption); figures.push(figure);
    });
  }
  part("cam").replaceChildren(...(figures.length ? figures : [element("p", "This net has no class or no stage with positions.")]));
  part("first").hidden = !inside.filters;
  if (inside.filters) {
    const [k, c, h, w] = inside.filters.shape, maps = await unpack(inside.filters.maps, inside.filters.shape);
    const most = Math.max(...maps.ends.map(Math.abs)), list = Array.from({length: Math.min(k, 64)}, (_, i) => i);
    const weights = i => {
      const picture = new ImageData(w, h);
      for (let j = 0; j < h * w; j++) picture.data.set([0, 1, 2].map(one => 127.5 * (1 + valueAt(maps, i, one, j) / most)).concat(255), 4 * j);
      return still(picture);
    };
    const draw = list.map(i => (pen, left, top, side) => fit(pen, c === 3 ? weights(i) : tile(maps, i, 0, [-most, most], "change"), left, top, side));
    lay(part("filters"), draw, Math.max(8, Math.min(k, Math.floor(part("first").clientWidth / 56))), -1, list.map(String));
  }
}
let insideSeen = false;
if (atlas.nets.some(net => net.inside?.stages)) {
  part("inside").hidden = false;
  atlas.nets.forEach((net, i) => { if (net.inside?.stages) part("net").append(new Option(net.name, i)); });
  look.net = +part("net").value;
  part("net").addEventListener("change", () => choose({net: +part("net").value}));
  new IntersectionObserver(([one], self) => { if (one.isIntersecting) { insideSeen = true; drawInside(); self.disconnect(); } }, {rootMargin: "400px"}).observe(part("inside"));
}
