// The page Review: one patch after another, labelled by keyboard.
import {
  $, askJson, complain, downloadFrom, element, guarded, meter, picture, plural, probability, Refusal, say, send, show, wait,
} from "./common.js";

// Tells this browser tab from other reviewers', so that no patch is handed to two of them.
const reader = sessionStorage.getItem("reader") ?? crypto.getRandomValues(new Uint32Array(3)).join("");
sessionStorage.setItem("reader", reader);

let status = null;
let current = null;
let ahead = []; // the next patches with their pictures, so that nothing has to be waited for
let heatFor = null;
const skipped = new Set(JSON.parse(sessionStorage.getItem("skipped") ?? "[]"));
const mine = JSON.parse(sessionStorage.getItem("mine") ?? "[]"); // {key, label} given here, the last of which undo takes back
let working = false;

const keepMine = () => sessionStorage.setItem("mine", JSON.stringify(mine.slice(-200)));

const image = (key) => picture(`/api/review/patches/${key}/patch.png`);
const named = (label) => status.class_names[status.classes.indexOf(label)] ?? label;

async function load() {
  for (;;) {
    status = await askJson("/api/review");
    $("none").hidden = status.state !== "none";
    const waiting = status.state === "opening" || status.state === "predicting";
    $("working").hidden = !waiting;
    if (status.state === "failed") throw new Refusal(422, status.error.replace(/\.$/, ""), "correct the data and start the server again");
    if (!waiting) break;
    $("progress").max = status.total || 1;
    if (status.total) $("progress").value = status.done; else $("progress").removeAttribute("value");
    $("working-text").textContent = status.total
      ? `Predicting once: ${status.done.toLocaleString("en")} of ${plural(status.total, "patch", "patches")}` : "Opening the data …";
    await wait(800);
  }
  if (status.state === "ready") await begin();
}

async function begin() {
  $("lead").textContent = `${plural(status.images, "patch", "patches")} of ${status.name}, those first of which ${status.model} is least sure.`;
  status.class_names.forEach((name, place) => { $(`class-${place}`).textContent = name; });
  $("positive").textContent = status.class_names[1];
  $("file").textContent = status.file;
  $("done").hidden = false;
  tally();
  await next();
}

function tally() {
  $("share").max = status.images;
  $("share").value = status.reviewed;
  $("counts").textContent = `${status.reviewed.toLocaleString("en")} of ${plural(status.images, "patch", "patches")} labelled; ` +
    `${status.changed} unlike the label in the data.`;
  $("undo").disabled = !mine.length;
  $("download").disabled = !status.reviewed;
  $("recent").replaceChildren(...status.recent.map((row) => element("li", {},
    element("span", {}, row.id), element("strong", {}, named(row.label)),
    element("span", { className: "muted" }, row.reviewer || ""),
    element("button", { type: "button", ariaLabel: `Take back the label of ${row.id}`, onclick: guarded(() => takeBack(row.key, row.label)) }, "Take back"))));
}

async function fill() {
  const without = [...skipped, ...(current ? [current.key] : [])];
  const items = await send("/api/review/next", "POST", { reader, without, limit: 3 });
  const known = new Map(ahead.map((item) => [item.key, item]));
  ahead = items.map((item) => ({ ...item, picture: known.get(item.key)?.picture ?? image(item.key) }));
}

async function next() {
  current = null;
  ahead = ahead.filter(({ key }) => !skipped.has(key) && !mine.some((given) => given.key === key));
  if (!ahead.length) await fill();
  await present(ahead.shift() ?? null);
  if (current) fill().catch(complain); // the next ones come while this one is looked at
}

async function present(item) {
  current = item;
  $("item").hidden = !item;
  $("finished").hidden = Boolean(item);
  if (!item) {
    $("finished-text").textContent = skipped.size
      ? `${plural(skipped.size, "patch was", "patches were")} skipped, or others have them; reload to see skipped ones again.`
      : "Every patch has a label, or another reviewer has it at the moment.";
    if (skipped.size) { skipped.clear(); sessionStorage.removeItem("skipped"); }
    say($("finished").textContent);
    return;
  }
  const address = await item.picture;
  if (current !== item) return;
  $("patch").src = address;
  $("patch").alt = `Patch ${item.id}`;
  $("heat").hidden = true;
  $("item-name").textContent = item.group ? `${item.id} · slide or patient ${item.group}` : item.id;
  $("probability").textContent = probability(item.probability);
  meter($("meter"), item.probability, status.threshold, status.class_names[1]);
  const other = status.classes.find((name) => name !== item.proposed);
  const origin = item.label_in_data ? `The data say ${named(item.label_in_data)}` : "The data have no label";
  const strange = item.in_distribution === false ? " It does not look like the training images." : "";
  $("standing").textContent = `${origin}; the model calls ${named(item.called)} and says ${item.decision}.${strange}`;
  $("accept").firstElementChild.textContent = `Accept ${named(item.proposed)}`;
  $("correct").firstElementChild.textContent = `Correct to ${named(other)}`;
  if (heatFor !== null) await heat();
  say(`${item.id}. Probability ${probability(item.probability)}. ${$("standing").textContent}`);
}

async function give(label) {
  if (!current) return;
  const item = current;
  const answer = await send(`/api/review/patches/${item.key}/label`, "PUT",
    { label, expected: "", reviewer: $("reviewer").value });
  const stands = answer.patch.given;
  if (stands === label) { mine.push({ key: item.key, label }); keepMine(); }
  status = answer.status;
  tally();
  if (stands !== label) {
    say(`Another reviewer has labelled ${item.id} ${named(stands)} meanwhile; that label stands.`);
    complain(new Refusal(409, `${answer.patch.given_by || "another reviewer"} has labelled ${item.id} ${named(stands)} meanwhile; that label stands`,
      "take it back below if you do not agree"));
  } else {
    say(`${item.id} labelled ${named(label)}.`);
  }
  await next();
}

async function takeBack(key, label) {
  const answer = await askJson(`/api/review/patches/${key}/label?${new URLSearchParams({ expected: label })}`, { method: "DELETE" });
  const place = mine.findLastIndex((given) => given.key === key);
  if (place >= 0) { mine.splice(place, 1); keepMine(); }
  status = answer.status;
  tally();
  if (answer.patch.given) {
    throw new Refusal(409, `${answer.patch.id} is labelled ${named(answer.patch.given)} by now; that label stands`, "look at it in the list");
  }
  if (current) ahead.unshift(current);
  skipped.delete(key);
  await present({ ...answer.patch, picture: image(key) });
  say(`Label of ${answer.patch.id} taken back.`);
  $("item").focus({ preventScroll: true });
}

async function skip() {
  if (!current) return;
  skipped.add(current.key);
  sessionStorage.setItem("skipped", JSON.stringify([...skipped]));
  await next();
}

async function heat() {
  const item = current;
  heatFor = item.key;
  try {
    const address = await picture(`/api/review/patches/${item.key}/heat.png`);
    if (current === item) { show($("heat"), address); $("heat").hidden = false; }
  } catch (error) { complain(error); }
}

const ACTIONS = {
  accept: () => give(current?.proposed),
  correct: () => give(status.classes.find((name) => name !== current?.proposed)),
  negative: () => give(status.classes[0]),
  positive: () => give(status.classes[1]),
  skip,
  undo: () => mine.length ? takeBack(mine.at(-1).key, mine.at(-1).label) : null,
  heat: () => {
    if ($("heat").hidden) return heat();
    heatFor = null;
    $("heat").hidden = true;
    return null;
  },
  centre: () => { $("centre").hidden = !$("centre").hidden; },
};
const KEYS = {
  a: "accept", Enter: "accept", c: "correct", 0: "negative", 1: "positive", s: "skip", u: "undo", Backspace: "undo", h: "heat", o: "centre",
};

async function act(name) {
  if (working || !status || status.state !== "ready") return; // a second press while the first is under way
  working = true;
  $("item").setAttribute("aria-busy", "true");
  try {
    complain(null);
    await ACTIONS[name]();
  } catch (error) {
    complain(error);
  } finally {
    working = false;
    $("item").removeAttribute("aria-busy");
  }
}

for (const name of ["accept", "correct", "skip", "undo"]) $(name).addEventListener("click", () => act(name));
document.addEventListener("keydown", (event) => {
  if (!$("shortcuts").checked || event.ctrlKey || event.metaKey || event.altKey || event.repeat || $("ask").open) return;
  if (event.target.matches("input[type=text], input[type=password], select")) return;
  if (event.key === "Enter" && event.target.matches("button, a, summary, input")) return;
  const name = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!name) return;
  event.preventDefault();
  act(name);
});
$("download").addEventListener("click", guarded(() => downloadFrom("/api/review/corrections.csv", "corrections.csv")));
$("reviewer").value = localStorage.getItem("reviewer") ?? "";
$("reviewer").addEventListener("change", () => localStorage.setItem("reviewer", $("reviewer").value));
$("shortcuts").checked = localStorage.getItem("shortcuts") !== "off";
$("shortcuts").addEventListener("change", () => localStorage.setItem("shortcuts", $("shortcuts").checked ? "on" : "off"));
guarded(load)();
