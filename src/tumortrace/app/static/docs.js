// The page HTTP API: openapi.json as a person reads it.
import { $, askJson, downloadFrom, element, guarded } from "./common.js";

let whole = null;

const resolve = (schema) => (schema?.$ref ? whole.components.schemas[schema.$ref.split("/").at(-1)] : schema);

function kind(schema) {
  if (!schema) return "";
  if (schema.$ref) return schema.$ref.split("/").at(-1);
  if (schema.anyOf) return schema.anyOf.map(kind).join(" or ");
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" or ");
  if (schema.type === "array") return `list of ${kind(schema.items)}`;
  return schema.format === "binary" || schema.contentMediaType ? "file" : schema.type ?? "anything";
}

function table(caption, heads, rows) {
  return element("div", { className: "scroll", tabIndex: 0, role: "region", ariaLabel: caption }, element("table", {},
    element("thead", {}, element("tr", {}, ...heads.map((head) => element("th", { scope: "col" }, head)))),
    element("tbody", {}, ...rows.map(([first, ...others]) => element("tr", {},
      element("th", { scope: "row" }, element("code", {}, first)), ...others.map((text) => element("td", {}, text)))))));
}

function parameters(operation) {
  const rows = (operation.parameters ?? []).map((each) =>
    [each.name, each.in, kind(each.schema), each.required ? "needed" : "", each.description ?? each.schema?.description ?? ""]);
  for (const [type, { schema }] of Object.entries(operation.requestBody?.content ?? {})) {
    const body = resolve(schema);
    for (const [name, each] of Object.entries(body?.properties ?? {})) {
      rows.push([name, type, kind(each), body.required?.includes(name) ? "needed" : "", each.description ?? ""]);
    }
  }
  return rows;
}

function example(method, path, operation) {
  const words = ["curl"];
  const types = Object.entries(operation.requestBody?.content ?? {});
  if (method !== "get" && !(method === "post" && types.length)) words.push("-X", method.toUpperCase());
  for (const [type, { schema }] of types) {
    const properties = Object.entries(resolve(schema)?.properties ?? {});
    if (type === "multipart/form-data") {
      for (const [name, each] of properties) if (kind(each).includes("file")) words.push("-F", `${name}=@image.png`);
    } else if (type === "application/json") {
      const filled = Object.fromEntries(properties.map(([name, each]) => [name, each.examples?.[0] ?? each.default ?? name]));
      words.push("-H", "'Content-Type: application/json'", "-d", `'${JSON.stringify(filled)}'`);
    }
  }
  return [...words, `${location.origin}${path}`].join(" ");
}

function operation(method, path, each) {
  const id = `${method}-${path.replace(/[^a-z0-9]+/gi, "-")}`;
  const made = element("section", { className: "operation", id },
    element("h3", {}, element("span", { className: "method" }, method.toUpperCase()), " ", element("code", {}, path)),
    element("p", {}, each.description ?? each.summary ?? ""));
  const rows = parameters(each);
  if (rows.length) made.append(table(`What ${path} takes`, ["Name", "In", "Kind", "", "Meaning"], rows));
  const all = Object.entries(each.responses ?? {});
  const failures = all.map(([status]) => status).filter((status) => status >= "400");
  const answers = all.filter(([status]) => status < "400").map(([status, answer]) => {
    const content = Object.entries(answer.content ?? {}).map(([type, { schema }]) => kind(schema) || type).join(", ");
    return [status, content, answer.description ?? ""];
  });
  made.append(table(`What ${path} answers`, ["Status", "Body", "Meaning"], answers),
    element("p", { className: "muted" }, failures.length ? `Errors: ${failures.join(", ")}.` : ""), element("pre", {}, example(method, path, each)));
  return [id, made, `${method.toUpperCase()} ${path}`];
}

guarded(async () => {
  whole = await askJson("/openapi.json");
  $("about").textContent = `TumorTrace ${whole.info.version}. ${whole.info.description ?? ""}`;
  const all = Object.entries(whole.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, each]) => operation(method, path, each)));
  $("index").replaceChildren(element("ul", {}, ...all.map(([id, , text]) => element("li", {}, element("a", { href: `#${id}` }, text)))));
  $("operations").replaceChildren(...all.map(([, made]) => made));
  $("operations").append(element("h2", {}, "Bodies"), ...Object.entries(whole.components?.schemas ?? {}).map(([name, schema]) =>
    element("section", { className: "operation", id: `schema-${name}` }, element("h3", {}, element("code", {}, name)),
      element("p", {}, (schema.description ?? "").split("\n\nAttributes:")[0]),
      table(`Fields of ${name}`, ["Field", "Kind", "Meaning"],
        Object.entries(schema.properties ?? {}).map(([field, each]) => [field, kind(each), each.description ?? (each.examples ? `such as ${JSON.stringify(each.examples[0])}` : "")])))));
})();
$("openapi").addEventListener("click", guarded(async (event) => {
  event.preventDefault();
  await downloadFrom("/openapi.json", "openapi.json");
}));
