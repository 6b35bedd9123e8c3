"use strict";
const body = document.querySelector("#slides tbody"), heads = [...document.querySelectorAll("#slides th")];
const value = (row, column) => {
  const cell = row.cells[column], text = cell.dataset.value ?? cell.innerText.trim();
  return cell.dataset.value === undefined ? text : text === "" ? null : Number(text);
};
heads.forEach((head, column) => head.querySelector("button")?.addEventListener("click", () => {
  const numeric = head.classList.contains("n");
  const down = head.ariaSort ? head.ariaSort === "ascending" : numeric;
  heads.forEach(other => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const order = (a, b) => numeric ? a - b : a.localeCompare(b, undefined, { numeric: true });
  const rows = [...body.rows].map(row => [value(row, column), row]);
  rows.sort(([a], [b]) => a === null || b === null ? (a === null) - (b === null) : down ? order(b, a) : order(a, b));
  body.append(...rows.map(([, row]) => row));
}));
const find = document.getElementById("find"), count = document.getElementById("count");
find.addEventListener("input", () => {
  const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const row of body.rows) {
    row.hidden = !words.every(word => row.textContent.toLowerCase().includes(word));
    shown += !row.hidden;
  }
  count.textContent = words.length ? `${shown} of ${body.rows.length}` : "";
});
