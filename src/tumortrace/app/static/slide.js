// The page Slide: start a scan, watch it, and look at the slide with its heat map and outlines laid over.
import {
  $, ask, askJson, authorization, chooseModel, complain, downloadFrom, element, facts, guarded, number, plural, Refusal, say,
  takeFiles, wait,
} from "./common.js";

const COLOURS = [[255, 221, 51], [255, 123, 0], [157, 2, 8]]; // of probability 0, 1/2 and 1
const STATES = { queued: "waits", running: "being scanned", done: "done" };

let model = null;
let known = null; // resolved once the model is known; files may be dropped before
let watched = null; // id of the scan that the page waits for
let viewer = null;
let layer = null;
let shown = null; // {id, heat, outlines} of the slide that is shown

async function list() {
  const { slides, scans } = await askJson("/api/slides");
  const before = $("served-name").value;
  $("served-name").replaceChildren(...slides.map(({ name }) => element("option", { value: name }, name)));
  if (slides.some(({ name }) => name === before)) $("served-name").value = before;
  $("served").hidden = !slides.length;
  $("scans").hidden = !scans.length;
  $("scan-list").replaceChildren(...scans.map(entry));
  return scans;
}

function entry(scan) {
  const line = element("li", {}, element("span", {}, scan.name), element("span", { className: "muted" }, progressText(scan)));
  if (scan.status === "done") {
    line.append(element("button", { type: "button", ariaLabel: `Show ${scan.name}`, onclick: guarded(() => open(scan.id)) }, "Show"));
  }
  if (scan.status === "running" || scan.status === "queued") {
    const bar = element("progress", { max: scan.total || 1, ariaLabel: `Progress of ${scan.name}` });
    if (scan.total) bar.value = scan.done;
    line.append(bar);
  }
  const word = scan.status === "running" || scan.status === "queued" ? "Cancel" : "Remove";
  line.append(element("button", { type: "button", ariaLabel: `${word} ${scan.name}`, onclick: guarded(() => remove(scan.id)) }, word));
  return line;
}

function progressText(scan) {
  if (scan.status === "failed") return `${scan.error.cause}. What to do: ${scan.error.remedy}.`;
  if (scan.status === "running" && scan.total) return `${scan.done.toLocaleString("en")} of ${plural(scan.total, "tile")}`;
  return STATES[scan.status] ?? scan.status;
}

async function start(body) {
  complain(null);
  await known;
  body.append("model", model.name);
  for (const name of ["resolution", "patch_resolution", "bits", "plane", "overlap"]) if ($(name).value) body.append(name, $(name).value);
  say("Sending the slide");
  const { id } = await (await ask("/api/slides", { method: "POST", body })).json();
  await list();
  await watch(id);
}

async function remove(id) {
  if (watched === id) watched = null;
  if (shown?.id === id) {
    viewer.destroy(); // before it asks for tiles that are gone
    [viewer, shown, $("viewing").hidden] = [null, null, true];
  }
  await ask(`/api/slides/${id}`, { method: "DELETE" });
  await list();
}

async function watch(id) {
  watched = id;
  let quarter = -1;
  while (watched === id) {
    const scan = await askJson(`/api/slides/${id}`);
    if (scan.status === "done") { await list(); await open(id); return; }
    if (scan.status === "failed") {
      await list();
      throw new Refusal(422, `${scan.name}: ${scan.error.cause}`, scan.error.remedy);
    }
    const now = scan.total ? Math.floor((4 * scan.done) / scan.total) : 0;
    if (now !== quarter) { quarter = now; say(`${scan.name}: ${progressText(scan)}`); }
    await wait(700);
    await list();
  }
}

async function open(id) {
  watched = null;
  const scan = await askJson(`/api/slides/${id}`);
  const [heat, outlines, dzi] = await Promise.all([
    askJson(`/api/slides/${id}/heat.json`),
    askJson(`/api/slides/${id}/outlines.geojson`),
    ask(`/api/slides/${id}/slide.dzi`).then((response) => response.text()),
  ]);
  shown = { id, heat, outlines: rings(outlines) };
  $("viewing").hidden = false;
  $("viewing-title").textContent = scan.name;
  describe(scan);
  view(id, dzi);
  restyle();
  $("viewing").scrollIntoView({ block: "start" });
  $("viewing-title").focus({ preventScroll: true });
  say(`${scan.name} is scanned. ${$("score").textContent}`);
}

function describe(scan) {
  const record = scan.result ?? {};
  const tiles = shown.heat.tiles;
  const positive = shown.heat.positive_class;
  const called = tiles.filter((tile) => tile.probability >= shown.heat.threshold).length;
  const score = record.score;
  $("score").textContent = `${plural(called, "tile")} of ${tiles.length.toLocaleString("en")} with tissue ` +
    `${called === 1 ? "is" : "are"} called ${positive} at the threshold ${number(shown.heat.threshold)}.` +
    (score?.value === null || score?.value === undefined ? "" : ` Slide score ${number(score.value)}: ${score.definition}.`);
  facts($("slide-facts"), [
    [`Tissue called ${positive}`, area(record.tumour ?? {})],
    ["Left to a person", record.referred_tiles === undefined ? null : plural(record.referred_tiles, "tile")],
    ["Unlike the training data", record.unfamiliar_tiles === null || record.unfamiliar_tiles === undefined ? null : plural(record.unfamiliar_tiles, "tile")],
    ["Out of focus", record.blurred_share === null || record.blurred_share === undefined ? null : `${(100 * record.blurred_share).toFixed(1)} % of the tissue`],
    ["Interval of the score", score?.interval],
    ["Size", `${shown.heat.width.toLocaleString("en")} × ${shown.heat.height.toLocaleString("en")} pixels`],
    ["Resolution", record.resolution ? `${number(record.resolution)} µm per pixel` : "not known"],
    ["Model", record.model?.name],
    ["Notes", (record.notes ?? []).join(" · ")],
  ]);
}

// Share and area of tumour; their range is what the model leaves to a person, once as normal and once as tumour.
function area({ share, mm2 }) {
  const parts = [[share, (value) => (100 * value).toFixed(1), " %"], [mm2, (value) => number(value, 2), " mm²"]]
    .filter(([entry]) => entry && entry.value !== null && entry.value !== undefined)
    .map(([{ value, range }, text, unit]) => text(value) + (range ? ` (${text(range[0])} to ${text(range[1])})` : "") + unit);
  return parts.length ? `${parts.join(", ")}; the range counts what is left to a person as normal and as tumour` : null;
}

function view(id, dzi) {
  const image = new DOMParser().parseFromString(dzi, "application/xml").documentElement;
  const size = image.querySelector("Size");
  const source = {
    Image: {
      xmlns: "http://schemas.microsoft.com/deepzoom/2008",
      Url: `/api/slides/${id}/slide_files/`,
      Format: image.getAttribute("Format"),
      Overlap: image.getAttribute("Overlap"),
      TileSize: image.getAttribute("TileSize"),
      Size: { Width: size.getAttribute("Width"), Height: size.getAttribute("Height") },
    },
  };
  viewer?.destroy();
  keepStyleOut();
  viewer = globalThis.OpenSeadragon({
    element: $("viewer"), tileSources: source, showNavigationControl: false, loadTilesWithAjax: true, ajaxHeaders: authorization(),
    drawer: "canvas", maxZoomPixelRatio: 4, visibilityRatio: 0.4, gestureSettingsMouse: { clickToZoom: false }, immediateRender: true,
  });
  viewer.canvas.setAttribute("aria-label", $("viewer").getAttribute("aria-label"));
  layer = element("canvas", { className: "layer", id: "layer" });
  layer.setAttribute("aria-hidden", "true");
  viewer.canvas.append(layer);
  for (const event of ["update-viewport", "open", "resize", "animation"]) viewer.addHandler(event, draw);
  new globalThis.OpenSeadragon.MouseTracker({ element: viewer.container, moveHandler: point }).setTracking(true);
}

// The viewer would write a style into the page, which the policy forbids, unless it finds an element of this name there.
function keepStyleOut() {
  const name = "data-openseadragon-mobile-css";
  if (document.querySelector(`style[${name}]`)) return;
  const stand = document.createElementNS("urn:tumortrace:none", "style");
  stand.setAttribute(name, "");
  document.head.append(stand);
}

// The heat in one canvas over the viewer: tiles from the threshold up, the likelier the less transparent; then outlines.
function draw() {
  const item = viewer?.world.getItemAt(0);
  if (!item || !shown) return;
  const ratio = globalThis.devicePixelRatio || 1;
  const box = viewer.container.getBoundingClientRect();
  const [wide, high] = [Math.round(box.width * ratio), Math.round(box.height * ratio)];
  if (layer.width !== wide || layer.height !== high) {
    layer.width = wide;
    layer.height = high;
    layer.style.width = `${box.width}px`;
    layer.style.height = `${box.height}px`;
  }
  const paper = layer.getContext("2d");
  const origin = item.imageToViewerElementCoordinates(new globalThis.OpenSeadragon.Point(0, 0));
  const far = item.imageToViewerElementCoordinates(new globalThis.OpenSeadragon.Point(shown.heat.width, 0));
  const scale = (far.x - origin.x) / shown.heat.width;
  paper.setTransform(1, 0, 0, 1, 0, 0);
  paper.clearRect(0, 0, wide, high);
  paper.setTransform(ratio * scale, 0, 0, ratio * scale, ratio * origin.x, ratio * origin.y);
  if ($("show-heat").checked) paintTiles(paper, scale);
  if ($("show-outlines").checked) paintOutlines(paper, scale);
}

function paintTiles(paper, scale) {
  const from = Number($("threshold").value);
  const apart = 0.15 / scale; // no seams between tiles
  for (const tile of shown.heat.tiles) {
    if (tile.probability < from) continue;
    paper.fillStyle = colour(tile.probability, (Number($("opacity").value) / 100) * (0.15 + 0.85 * tile.probability));
    paper.fillRect(tile.x, tile.y, tile.width + apart, tile.height + apart);
  }
}

function paintOutlines(paper, scale) {
  for (const [style, width] of [["rgb(255 255 255 / .9)", 4], ["rgb(20 40 160)", 2]]) {
    paper.strokeStyle = style;
    paper.lineWidth = width / scale;
    paper.beginPath();
    for (const ring of shown.outlines) {
      ring.forEach(([x, y], place) => (place ? paper.lineTo(x, y) : paper.moveTo(x, y)));
      paper.closePath();
    }
    paper.stroke();
  }
}

function colour(value, opacity) {
  const [low, high, share] = value < 0.5 ? [COLOURS[0], COLOURS[1], 2 * value] : [COLOURS[1], COLOURS[2], 2 * value - 1];
  const mixed = low.map((part, place) => Math.round(part + share * (high[place] - part)));
  return `rgb(${mixed.join(" ")} / ${opacity})`;
}

function rings(collection) {
  return collection.features.flatMap(({ geometry }) =>
    (geometry.type === "MultiPolygon" ? geometry.coordinates.flat() : geometry.type === "Polygon" ? geometry.coordinates : []));
}

function point(event) {
  const item = viewer.world.getItemAt(0);
  if (!item || !shown) return;
  const place = item.viewerElementToImageCoordinates(event.position);
  const tile = shown.heat.tiles.find(({ x, y, width, height }) =>
    place.x >= x && place.x < x + width && place.y >= y && place.y < y + height);
  $("pointed").hidden = !tile;
  if (tile) $("pointed").textContent = `${shown.heat.positive_class} ${number(tile.probability, 2)}`;
}

function restyle() {
  const from = Number($("threshold").value);
  $("opacity-shown").textContent = `${$("opacity").value} %`;
  $("threshold-shown").textContent = number(from, 2);
  if (!shown) return;
  const above = shown.heat.tiles.filter((tile) => tile.probability >= from).length;
  $("above").textContent = `${above.toLocaleString("en")} of ${plural(shown.heat.tiles.length, "tile")} shown.`;
  draw();
}

function set(value) {
  $("threshold").value = value;
  restyle();
}

for (const name of ["opacity", "threshold", "show-heat", "show-outlines"]) $(name).addEventListener("input", restyle);
$("threshold-all").addEventListener("click", () => set(0));
$("threshold-model").addEventListener("click", () => set(shown.heat.threshold));
$("zoom-in").addEventListener("click", () => viewer.viewport.zoomBy(1.6).applyConstraints());
$("zoom-out").addEventListener("click", () => viewer.viewport.zoomBy(1 / 1.6).applyConstraints());
$("zoom-all").addEventListener("click", () => viewer.viewport.goHome());
for (const [name, file] of [["geojson", "outlines.geojson"], ["tiles", "tiles.csv"]]) {
  $(name).addEventListener("click", guarded(async () => {
    await downloadFrom(`/api/slides/${shown.id}/${file}`, `${$("viewing-title").textContent.replace(/\.[^.]*$/, "")}-${file}`);
  }));
}
$("served").addEventListener("submit", guarded(async (event) => {
  event.preventDefault();
  const body = new FormData();
  body.append("name", $("served-name").value);
  await start(body);
}));
takeFiles($("drop"), $("file"), async ([file]) => {
  const body = new FormData();
  body.append("file", file, file.name);
  await start(body);
});
guarded(async () => {
  known = chooseModel((records) => { model = records; });
  await known;
  const running = (await list()).find(({ status }) => status === "running" || status === "queued");
  if (running) await watch(running.id);
})();
