"use strict";
// Headings become buttons that sort their column: up, down, and back to the order of the plan.
const words = new Intl.Collator("en", { numeric: true });
const marks = { none: "\u2195", ascending: "\u2191", descending: "\u2193" };
const after = { none: "ascending", ascending: "descending", descending: "none" };

function compare(column, numeric, sign) {
  return (one, other) => {
    const cells = [one.cells[column], other.cells[column]];
    if (!numeric) return sign * words.compare(cells[0].textContent.trim(), cells[1].textContent.trim());
    const [a, b] = cells.map((cell) => (cell.dataset.value === undefined ? NaN : Number(cell.dataset.value)));
    if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b); // without a number: last
    return a === b ? 0 : sign * (a < b ? -1 : 1);
  };
}

for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const planned = Array.from(body.rows);
  const headings = Array.from(table.tHead.rows[0].cells);
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    const mark = document.createElement("span");
    button.type = "button";
    mark.setAttribute("aria-hidden", "true");
    mark.textContent = "\u00a0" + marks.none;
    button.append(...heading.childNodes, mark);
    heading.append(button);
    button.addEventListener("click", () => {
      const order = after[heading.getAttribute("aria-sort") || "none"];
      for (const other of headings) {
        other.removeAttribute("aria-sort");
        other.querySelector("button span").textContent = "\u00a0" + marks.none;
      }
      if (order !== "none") heading.setAttribute("aria-sort", order);
      mark.textContent = "\u00a0" + marks[order];
      const rows = Array.from(planned);
      if (order !== "none") {
        rows.sort(compare(column, heading.dataset.sort === "number", order === "ascending" ? 1 : -1));
      }
      body.append(...rows);
    });
  });
}

// Paper has no buttons: what is folded is printed open.
let folded = [];
window.addEventListener("beforeprint", () => {
  folded = Array.from(document.querySelectorAll("details:not([open])"));
  for (const details of folded) details.open = true;
});
window.addEventListener("afterprint", () => {
  for (const details of folded) details.open = false;
});
