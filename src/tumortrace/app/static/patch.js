// The page Patch: predictions of uploaded images, and what lies behind one of them.
import {
  $, ask, askJson, between, chooseModel, complain, csv, download, element, facts, guarded, joined, meter, number, picture,
  plural, probability, say, send, show, takeFiles,
} from "./common.js";

const MEANS = {
  positive: (model) => `The model calls ${model.positive_class}.`,
  negative: (model) => `The model calls ${model.classes[0]}.`,
  refer: () => "The model cannot tell well enough: a person should look.",
};
const WHOLE = 1000; // images of a set that are judged as a whole
const AT_ONCE = 16; // files in one request, so that the table fills while the rest is on its way

let model = null;
let images = []; // {file, example, said, view, failed}, in the order in which they came
let chosen = null;
let known = null; // resolved once the model is known; files may be dropped before
let round = 0; // what was asked for an earlier choice is dropped

const withModel = (path, more = {}) => `${path}?${new URLSearchParams({ model: model.name, ...more })}`;

function form(...files) {
  const body = new FormData();
  for (const file of files) body.append("file", file, file.name);
  return { method: "POST", body };
}

async function take(files, example = null) {
  complain(null);
  await known;
  const begun = files.map((file) => ({ file, example, said: null, view: null, failed: null }));
  const first = images.length;
  images.push(...begun);
  table();
  await predict(begun);
  const good = begun.find((image) => image.said);
  if (good) await choose(images.indexOf(good)); else if (images.length === first + 1) forget(first);
}

function forget(from) {
  complain(new Error(images[from].failed));
  images.splice(from);
  table();
}

async function predict(begun) {
  $("busy").hidden = false;
  try {
    for (let start = 0; start < begun.length; start += AT_ONCE) {
      const part = begun.slice(start, start + AT_ONCE);
      $("busy-text").textContent = `Predicting ${plural(begun.length - start, "image")} …`;
      await predictPart(part);
      table();
    }
  } finally {
    $("busy").hidden = true;
  }
  await whole();
}

// How far all of them together lie from the training images; of very many some, evenly taken.
async function whole() {
  $("many-drift").hidden = true;
  const [all, mine] = [images.map((image) => image.said?.components).filter(Boolean), model];
  if (all.length < 2) return;
  const step = Math.max(all.length / WHOLE, 1);
  const components = all.filter((_, place) => Math.floor(place / step) !== Math.floor((place - 1) / step));
  const told = await send(withModel("/api/drift"), "POST", { components, images: all.length });
  if (mine !== model) return;
  const line = told.line.replace(/^warning: /, "");
  $("many-drift").textContent = `${line[0].toUpperCase()}${line.slice(1)}.`;
  $("many-drift").className = told.verdict === "further" ? "callout warning" : "muted";
  $("many-drift").hidden = false;
}

// One request for all; where one image cannot be read, each by itself, so that the others are answered.
async function predictPart(part) {
  try {
    const said = await (await ask(withModel("/api/predict", { components: true }), form(...part.map((image) => image.file)))).json();
    part.forEach((image, place) => { image.said = said[place]; });
  } catch (error) {
    if (part.length > 1 && error.status >= 400 && error.status < 500) {
      for (const image of part) await predictPart([image]);
    } else if (part.length === 1 && error.status >= 400 && error.status < 500) {
      part[0].failed = error.message;
    } else {
      throw error;
    }
  }
}

// The patch as the model takes it, since browsers show neither TIFF nor DICOM.
async function view(image) {
  image.view ??= await picture(withModel("/api/patch"), form(image.file));
  return image.view;
}

function badge(decision) { return element("strong", { className: `badge ${decision}` }, decision); }

function resembles(said) {
  if (said.in_distribution === null || said.in_distribution === undefined) return "not known";
  return said.in_distribution ? "yes" : "no";
}

function table() {
  $("many").hidden = images.length < 2;
  if (images.length < 2) return;
  const done = images.filter((image) => image.said);
  const counts = ["positive", "refer", "negative"].map((decision) =>
    `${done.filter((image) => image.said.decision === decision).length} ${decision}`);
  const failed = images.filter((image) => image.failed).length;
  $("many-summary").textContent =
    `${plural(done.length, "image")}: ${counts.join(", ")}${failed ? `; ${failed} could not be read` : ""}.`;
  $("rows").replaceChildren(...images.map(row));
}

function row(image, place) {
  const small = element("img", { alt: "", loading: "lazy" });
  if (image.view) small.src = image.view;
  else if (image.said && place < 60) view(image).then((address) => { small.src = address; }).catch(() => {});
  const name = image.said
    ? element("button", { type: "button", onclick: guarded(() => choose(place)) }, image.file.name)
    : image.file.name;
  const line = element("tr", { className: image === chosen ? "chosen" : "" },
    element("td", {}, small), element("th", { scope: "row" }, name));
  if (image.failed) line.append(element("td", { colSpan: 3, className: "error" }, image.failed));
  else if (!image.said) line.append(element("td", { colSpan: 3, className: "muted" }, "…"));
  else line.append(element("td", { className: "n" }, probability(image.said.probability)),
    element("td", {}, badge(image.said.decision)), element("td", {}, resembles(image.said)));
  return line;
}

async function choose(place) {
  chosen = images[place];
  const mine = ++round;
  table();
  describe(chosen);
  $("heat").hidden = true;
  const address = await view(chosen);
  if (mine !== round) return;
  $("patch").src = address;
  $("one").hidden = false;
  $("one").focus({ preventScroll: images.length < 2 });
  say(`${chosen.file.name}: probability of ${model.positive_class} ${probability(chosen.said.probability)}, ${chosen.said.decision}.`);
  await Promise.all([explain(), seen()]);
}

// Of more than two classes the likeliest, those that cannot be ruled out, and each with its probability.
function classes(said) {
  if (!said) return [];
  const shares = Object.entries(said.probabilities).sort((one, other) => other[1] - one[1]);
  return [
    ["Likeliest class", said.predicted],
    ["Cannot be ruled out", said.set && (said.set.join(", ") || "none")],
    ...shares.map(([name, share]) => [`Probability of ${name}`, probability(share)]),
  ];
}

function describe({ said, file, example }) {
  $("one-name").textContent = file.name;
  $("probability").textContent = probability(said.probability);
  $("probability").dataset.value = said.probability;
  meter($("meter"), said.probability, model.threshold, model.positive_class);
  $("decision").textContent = said.decision;
  $("decision").className = `badge ${said.decision}`;
  $("decision-means").textContent = MEANS[said.decision](model);
  $("meaning").textContent = meaning(said.probability);
  $("distribution").textContent = distribution(said);
  $("distribution").className = said.in_distribution === false ? "callout warning" : "muted";
  facts($("facts"), [
    ["Probability", said.probability.toFixed(6)],
    ["Threshold", `${number(model.threshold)} (${model.threshold_policy})`],
    ["Called", said.label],
    ...classes(said.classes),
    ["In truth", example?.truth && `${example.truth} (${example.source} of ${example.model})`],
    ["Model", said.model],
    ["Notes", said.notes.join("; ")],
  ]);
}

// What the probability meant on patches that the model had not seen.
function meaning(value) {
  const bins = model.reliability;
  if (!bins.length) return "How often patches with this probability are right has not been measured for this model.";
  const away = (bin) => Math.max(bin.low - value, value - bin.high, 0);
  const bin = bins.reduce((best, other) => (away(other) < away(best) ? other : best));
  const of100 = (share) => Math.round(100 * share);
  return `Of 100 patches that were given about this probability (${between(bin.low, bin.high)}), about ` +
    `${of100(bin.share)} were ${model.positive_class} (95 % interval ${of100(bin.ci95[0])} to ${of100(bin.ci95[1])}; ` +
    `${plural(bin.n, "patch", "patches")} of the ${model.judged.split} split). It holds where ${model.positive_class} is as frequent as there.`;
}

function distribution(said) {
  if (said.in_distribution === false) {
    return "This image does not look like those that the model was trained on: do not rely on the probability.";
  }
  if (said.in_distribution) return "It looks like the images that the model was trained on.";
  return "Whether it looks like the training images, this model cannot say.";
}

async function explain() {
  const [image, mine, method] = [chosen, round, $("method").value];
  if (!image || !method) return;
  $("heat-caption").textContent = "Looking for what speaks for it …";
  try {
    const heat = await picture(withModel("/api/explain", { method, layer: "heat" }), form(image.file));
    if (mine !== round || method !== $("method").value) return;
    show($("heat"), heat);
    $("heat").hidden = false;
    const { title, signed } = model.methods.find(({ name }) => name === method);
    const found = await anyHeat($("heat"));
    if (mine !== round || method !== $("method").value) return;
    $("heat-caption").textContent = !found ? `${title}: no heat, as nothing in this patch speaks for ${model.positive_class}.`
      : `${title}: yellow to red speaks for ${model.positive_class}${signed ? ", blue against it" : ""}.`;
    $("scale").className = signed ? "signed" : "";
    $("scale-low").textContent = signed ? "against" : "none";
  } catch (error) {
    if (mine === round) $("heat-caption").textContent = `No heat: ${error.message}`;
  }
}

async function anyHeat(image) {
  await image.decode();
  const paper = element("canvas", { width: image.naturalWidth, height: image.naturalHeight }).getContext("2d");
  paper.drawImage(image, 0, 0);
  return paper.getImageData(0, 0, image.naturalWidth, image.naturalHeight).data.some((value, place) => place % 4 === 3 && value > 0);
}

async function seen() {
  const [image, mine] = [chosen, round];
  const address = await picture(withModel("/api/seen"), form(image.file));
  if (mine === round) show($("seen"), address);
}

// The square whose tissue decides a label in PatchCamelyon, and the crop that the network takes.
function outline() {
  const [height, width] = model.patch_size;
  const square = (box, side, shown) => {
    box.hidden = !shown || !$("outlines").checked;
    const [wide, high] = [Math.min(side / width, 1), Math.min(side / height, 1)];
    Object.assign(box.style, {
      left: `${50 - 50 * wide}%`, width: `${100 * wide}%`, top: `${50 - 50 * high}%`, height: `${100 * high}%`,
    });
  };
  square($("centre"), Math.min(height, width) / 3, true);
  square($("crop"), model.crop ?? 0, Boolean(model.crop));
  $("crop-text").textContent = model.crop ? ", and (dashed) what the network sees" : "";
  $("stack").style.aspectRatio = `${width} / ${height}`;
}

function strengthen() {
  const value = Number($("strength").value);
  $("heat").style.opacity = value / 100;
  $("strength-shown").textContent = `${value} %`;
}

function tableCsv() {
  const columns = ["name", "label", "probability", "decision", "in_distribution", "ood_score", "model", "notes"];
  const rows = images.filter((image) => image.said).map(({ said }) => columns.map((column) => (column === "notes" ? said.notes.join("; ") : said[column])));
  download("predictions.csv", csv([columns, ...rows]));
}

// Right and wrong calls of the run's own test split; generated ones where the run keeps none.
async function examples() {
  const mine = model;
  const found = await askJson(withModel("/api/examples"));
  const entries = await Promise.all(found.map(async (example, place) => {
    const content = await (await ask(withModel(`/api/examples/${example.name}`))).blob(); // the policy lets no script fetch blob:
    const words = example.truth ? `${example.truth}, called ${example.called}` : "";
    const button = element("button", { type: "button", ariaLabel: `Example ${place + 1}${words && `: ${words}`}` },
      element("img", { src: URL.createObjectURL(content), alt: "" }));
    button.addEventListener("click", guarded(() =>
      take([new File([content], example.name, { type: "image/png" })], { ...example, model: mine.name })));
    const right = example.truth === example.called;
    const caption = element("small", { className: right ? "right" : "wrong", ariaHidden: "true" }, right ? "✓ " : "✗ ", ...joined(example.truth));
    return element("li", {}, button, ...(example.truth ? [caption] : []));
  }));
  if (mine !== model) return; // another model was chosen meanwhile
  $("examples-title").textContent = origin(found[0]?.source);
  $("examples").querySelector("ul").replaceChildren(...entries);
  $("examples").hidden = !found.length;
}

function origin(source) {
  if (source === "generated") return "Or try a generated one; this model's run keeps no test images:";
  const of = source === "test split" ? "the run's test split" : `the run's ${source}`;
  return `Or try one of ${of}, from which the model has not learnt: its surest calls, ✓ right and ✗ wrong, with the true class:`;
}

async function changed(records) {
  model = records;
  $("method").replaceChildren(...model.methods.map(({ name, title }) => element("option", { value: name }, title)));
  const width = model.crop ?? model.patch_size[1];
  $("seen-caption").textContent = `${width} pixels wide, after crop, stain and other preprocessing that belong to the model.`;
  outline();
  guarded(examples)(); // beside what follows: nobody waits for them
  images.forEach((image) => { Object.assign(image, { said: null, view: null, failed: null }); });
  if (!images.length) return;
  const place = Math.max(images.indexOf(chosen), 0);
  await predict(images);
  if (images[place].said) await choose(place);
}

$("method").addEventListener("change", guarded(explain));
$("strength").addEventListener("input", strengthen);
$("outlines").addEventListener("change", outline);
$("csv").addEventListener("click", tableCsv);
$("clear").addEventListener("click", () => {
  images = [];
  chosen = null;
  round += 1;
  $("one").hidden = true;
  $("many-drift").hidden = true;
  table();
  $("files").focus();
});
takeFiles($("drop"), $("files"), take);
strengthen();
guarded(async () => {
  known = chooseModel(changed);
  await known;
})();
