// What every page does: ask the server (with its token), choose the model, say what goes wrong, and say what happens.

export const $ = (id) => document.getElementById(id);

export class Refusal extends Error {
  constructor(status, cause, remedy) {
    super(remedy ? `${cause}. What to do: ${remedy}.` : `${cause}.`);
    this.status = status;
  }
}

let asking = null; // one dialog, however many requests wait for the token

function askForToken(again) {
  asking ??= new Promise((resolve) => {
    const dialog = $("ask");
    if (again) $("ask-why").textContent = "That token was not the right one. Try again.";
    dialog.addEventListener("close", () => {
      sessionStorage.setItem("token", $("token").value.trim());
      $("token").value = "";
      asking = null;
      resolve();
    }, { once: true });
    dialog.showModal();
  });
  return asking;
}

export function authorization() {
  const token = sessionStorage.getItem("token");
  return token ? { Authorization: `Bearer ${token}` } : {};
}

// The response to a request; a token is asked for where one is needed, and a busy server is asked again.
export async function ask(path, options = {}) {
  for (let busy = 0; ;) {
    const used = sessionStorage.getItem("token");
    let response;
    try {
      response = await fetch(path, { ...options, headers: { ...options.headers, ...authorization() } });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Refusal(0, "the server does not answer", "see whether it still runs, then try again");
    }
    if (response.status === 401) {
      if (sessionStorage.getItem("token") === used) await askForToken(Boolean(used));
      continue;
    }
    if (response.status === 503 && busy < 5) {
      busy += 1;
      await wait(1000 * Number(response.headers.get("Retry-After") || 2));
      continue;
    }
    if (!response.ok) throw await refusal(response);
    return response;
  }
}

async function refusal(response) {
  try {
    const { error } = await response.json();
    return new Refusal(response.status, error.cause, error.remedy);
  } catch {
    return new Refusal(response.status, `the server answered ${response.status}`, "try again");
  }
}

export const askJson = async (path, options) => (await ask(path, options)).json();

export const send = (path, method, body) =>
  askJson(path, { method, headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });

// Pictures are fetched, since an <img> sends no token.
export async function picture(path, options) {
  return URL.createObjectURL(await (await ask(path, options)).blob());
}

export function show(image, address) {
  if (image.src.startsWith("blob:")) URL.revokeObjectURL(image.src);
  image.src = address;
}

export const wait = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

export function say(text) { $("live").textContent = text; }

export function complain(error) {
  if (error?.name === "AbortError") return;
  const box = $("problem");
  box.textContent = error ? error.message : "";
  box.hidden = !error;
  if (error && !(error instanceof Refusal)) console.error(error);
  if (error) box.scrollIntoView({ block: "nearest" });
}

// A function for an event that shows what goes wrong in the page.
export const guarded = (task) => async (...given) => {
  try { await task(...given); } catch (error) { complain(error); }
};

// The text of an element, or elements, made without markup.
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in made) made[name] = value; else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

// A name of several classes, such as insitu+invasive, which breaks between them.
export function joined(name) {
  return name.split("+").flatMap((part, place) => (place ? ["+", element("wbr"), part] : [part]));
}

export function facts(list, pairs) {
  list.replaceChildren(...pairs.filter(([, text]) => text !== null && text !== undefined && text !== "")
    .flatMap(([name, text]) => [element("dt", {}, name), element("dd", {}, String(text))]));
}

export const number = (value, places = 3) =>
  value === null || value === undefined ? "—" : value.toFixed(places).replace(/^(-?)0\./, "$1.").replace("-", "−");
export const interval = (bounds, places = 3) => bounds ? `[${number(bounds[0], places)}, ${number(bounds[1], places)}]` : "—";
// Two places, and more near 0 and 1, where .995 and .9999 differ.
export const probability = (value) =>
  Math.min(value, 1 - value) >= 0.01 ? number(value, 2)
    : value > 0.9995 && value < 1 ? "> .999" : value < 0.0005 && value > 0 ? "< .001" : number(value, 3);
// From one probability to another, in words; one where they read alike.
export const between = (low, high) => {
  const [from, to] = [low, high].map((value) => number(value, Math.min(value, 1 - value) < 0.01 ? 3 : 2));
  return from === to ? probability(low) : `${from} to ${to}`;
};
export const plural = (count, one, many = `${one}s`) => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;

export function download(name, text, type = "text/csv") {
  const address = URL.createObjectURL(new Blob([text], { type }));
  element("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

export async function downloadFrom(path, name) {
  const address = await picture(path);
  element("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

// Text that a spreadsheet would take for a formula (names come with uploads) begins with an apostrophe, as OWASP advises.
export function csv(rows) {
  const field = (value) => {
    let text = value === null || value === undefined ? "" : String(value);
    if (typeof value === "string" && /^[=+\-@\t\r]/.test(text)) text = `'${text}`;
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return rows.map((row) => row.map(field).join(",") + "\n").join("");
}

// The models that are served, the one chosen last being chosen again; `changed` is called with what is on record of it.
export async function chooseModel(changed) {
  const picker = $("model");
  const models = (await askJson("/api/models")).map(({ name }) => name);
  picker.replaceChildren(...models.map((name) => element("option", { value: name }, name)));
  const last = sessionStorage.getItem("model");
  if (models.includes(last)) picker.value = last;
  picker.closest("label").hidden = models.length < 2;
  const apply = async () => {
    complain(null);
    const records = await askJson(`/api/records/${encodeURIComponent(picker.value)}`);
    for (const place of document.querySelectorAll("[data-positive]")) place.textContent = records.positive_class;
    await changed(records);
  };
  picker.addEventListener("change", guarded(async () => {
    sessionStorage.setItem("model", picker.value);
    await apply();
  }));
  await apply();
}

// A bar from 0 to 1 with a mark at the threshold.
export function meter(box, value, threshold, positive) {
  box.querySelector("i").style.width = `${100 * value}%`;
  box.querySelector("b").style.left = `${100 * Math.min(threshold, 1)}%`;
  box.setAttribute("aria-label", `Probability of ${positive} ${number(value, 2)}; the threshold is ${number(threshold, 2)}`);
}

// What happens when files are dropped on an element, chosen, or pasted.
export function takeFiles(box, input, take) {
  const given = guarded(async (files) => { if (files.length) await take([...files]); });
  input.addEventListener("change", async () => { await given(input.files); input.value = ""; });
  for (const name of ["dragenter", "dragover"]) {
    document.addEventListener(name, (event) => { event.preventDefault(); box.classList.add("over"); });
  }
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) box.classList.remove("over"); });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    box.classList.remove("over");
    given(event.dataTransfer.files);
  });
  document.addEventListener("paste", (event) => given(event.clipboardData.files));
}
