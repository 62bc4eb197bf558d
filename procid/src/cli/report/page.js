// Filters and sorts the tables. The page is whole without it.
"use strict";

for (const table of document.querySelectorAll("table")) {
  const rows = Array.from(table.tBodies[0].rows);
  const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));

  const filter = document.createElement("input");
  filter.className = "filter";
  filter.type = "search";
  filter.placeholder = "Filter: words that a row must have";
  filter.setAttribute("aria-label", "Filter this table");
  const shown = document.createElement("p");
  shown.className = "shown";
  table.before(filter, shown);

  const apply = () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const row of rows) {
      row.hidden = !words.every((word) => texts.get(row).includes(word));
      count += row.hidden ? 0 : 1;
    }
    shown.textContent = `${count} of ${rows.length} rows`;
  };
  filter.addEventListener("input", apply);
  apply();

  const heads = Array.from(table.tHead.rows[0].cells);
  heads.forEach((head, column) => {
    const order = () => {
      const rising = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", rising ? "ascending" : "descending");
      const cell = (row) => row.cells[column].textContent;
      rows.sort((a, b) => {
        const by = cell(a).localeCompare(cell(b), "en", { numeric: true });
        return rising ? by : -by;
      });
      table.tBodies[0].append(...rows);
    };
    head.setAttribute("role", "button");
    head.tabIndex = 0;
    head.addEventListener("click", order);
    head.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        order();
      }
    });
  });
}
