// The page Model: what is on record of the model that is chosen.
import { $, between, chooseModel, element, facts, guarded, interval, number, plural } from "./common.js";

const SVG = "http://www.w3.org/2000/svg";

function drawn(tag, attributes, text = "") {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.textContent = text;
  return made;
}

// Observed share over predicted probability, with the interval of each share.
function curve(bins, positive) {
  const [size, left, below] = [400, 46, 42];
  const x = (value) => left + value * (size - left - 12);
  const y = (value) => size - below - value * (size - below - 12);
  const chart = drawn("svg", { class: "chart", viewBox: `0 0 ${size} ${size}`, role: "img",
    "aria-label": `Calibration: observed share of ${positive} over predicted probability; the table beside it has the numbers` });
  for (const tick of [0, 0.25, 0.5, 0.75, 1]) {
    chart.append(drawn("line", { class: "grid", x1: x(tick), x2: x(tick), y1: y(0), y2: y(1) }),
      drawn("line", { class: "grid", x1: x(0), x2: x(1), y1: y(tick), y2: y(tick) }),
      drawn("text", { x: x(tick), y: y(0) + 17, "text-anchor": "middle" }, number(tick, 2)),
      drawn("text", { x: x(0) - 7, y: y(tick) + 4, "text-anchor": "end" }, number(tick, 2)));
  }
  chart.append(drawn("line", { class: "ideal", x1: x(0), y1: y(0), x2: x(1), y2: y(1) }),
    drawn("text", { x: x(0.5), y: size - 6, "text-anchor": "middle" }, "predicted probability"),
    drawn("text", { x: 12, y: y(0.5), "text-anchor": "middle", transform: `rotate(-90 12 ${y(0.5)})` }, `share that is ${positive}`));
  for (const bin of bins) {
    chart.append(drawn("line", { class: "bar", x1: x(bin.mean), x2: x(bin.mean), y1: y(bin.ci95[0]), y2: y(bin.ci95[1]) }),
      drawn("circle", { cx: x(bin.mean), cy: y(bin.share), r: 4.5 }));
  }
  return chart;
}

const cell = (text) => element("td", { className: "n" }, text);
const of100 = (share) => String(Math.round(100 * share));

function show(model) {
  document.title = `${model.name} · TumorTrace`;
  $("model-name").textContent = model.name;
  $("verdict").textContent = model.verdict;
  const judged = model.judged;
  $("metrics-of").textContent = judged
    ? `On the ${judged.split} split: ${plural(judged.n, "patch", "patches")}${judged.n_groups ? ` of ${plural(judged.n_groups, "slide or patient", "slides or patients")}` : ""}.`
    : "Not available: this is a model without the records of its run.";
  $("metrics").replaceChildren(...(judged?.metrics ?? []).map((metric) => element("tr", { id: `metric-${metric.name}` },
    element("th", { scope: "row" }, metric.title), cell(number(metric.value)), cell(interval(metric.ci95)))));
  $("intervals").textContent = judged?.intervals ?? "";
  $("calibration").hidden = !model.reliability.length;
  $("curve").replaceChildren(curve(model.reliability, model.positive_class));
  $("bins").replaceChildren(...model.reliability.map((bin) => element("tr", {},
    element("th", { scope: "row" }, between(bin.low, bin.high)), cell(bin.n.toLocaleString("en")),
    cell(of100(bin.share)), cell(`${of100(bin.ci95[0])} to ${of100(bin.ci95[1])}`))));
  $("bins-of").textContent = judged
    ? `Patches of the ${judged.split} split in bins of equal size. The intervals (Wilson) take patches for independent; those of one slide are not quite.` : "";
  facts($("decides"), [
    ["Positive class", `${model.positive_class} (against ${model.classes[0]})`],
    ["Threshold", `${number(model.threshold)} (${model.threshold_policy})`],
    ["Refers", model.coverage ? `when unsure: conformal prediction at ${Math.round(100 * model.coverage)} % coverage` : "never"],
    ["Calibration", model.calibration],
    ["Symmetries", model.symmetries ? "the mean of eight rotations and mirrorings" : "one view"],
    ["Network", model.architecture],
    ["Recipe", model.recipe],
    ["Weights SHA-256", model.weights_sha256],
  ]);
  const data = model.data;
  facts($("data"), [
    ["Fingerprint", data.fingerprint],
    ["Name", data.name],
    ["Layout", data.layout],
    ["Images", data.images?.toLocaleString("en")],
    ["Slides or patients", data.groups?.toLocaleString("en") ?? "not known"],
    ["Resolution", data.resolution ? `${data.resolution} µm per pixel` : "not known"],
    ["Patches", `${model.patch_size[1]} × ${model.patch_size[0]} pixels`],
    ["Share positive", number(data.prevalence)],
    ["Leakage", data.leakage],
    ["Notes", (data.notes ?? []).join(" · ")],
  ]);
  $("card-section").hidden = !model.card;
  $("card").innerHTML = model.card; // made by the server from Markdown in which HTML is text
}

guarded(() => chooseModel(show))();
