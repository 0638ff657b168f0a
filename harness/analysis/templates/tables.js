// Tables: order by a column, filter by the first, and what each column is.
const tip = make("div", { id: "tip", role: "tooltip" });
tip.hidden = true;
document.body.append(tip);
const explain = (element, text) => {
  const show = () => {
    tip.textContent = text;
    tip.hidden = false;
    const box = element.getBoundingClientRect(), width = tip.offsetWidth;
    tip.style.left = `${Math.max(8, Math.min(window.innerWidth - width - 8, box.left))}px`;
    tip.style.top = `${box.bottom + 6}px`;
  };
  const hide = () => { tip.hidden = true; };
  for (const kind of ["mouseenter", "focus"]) element.addEventListener(kind, show);
  for (const kind of ["mouseleave", "blur"]) element.addEventListener(kind, hide);
};
document.addEventListener("keydown", (event) => { if (event.key === "Escape") tip.hidden = true; });
window.addEventListener("scroll", () => { tip.hidden = true; }, { passive: true, capture: true });

const sortValue = (row, column) => {
  const cell = row.cells[column];
  return cell.dataset.sort !== undefined ? Number(cell.dataset.sort) : cell.textContent.trim();
};
const tables = new Map(); // name in the address -> how it was written, and how to order it
const headingOf = (table) => {
  let before = table.closest(".scroll");
  while (before && !/^H\d$/.test(before.tagName)) before = before.previousElementSibling;
  return before ? before.id : `table-${tables.size}`;
};
for (const table of document.querySelectorAll("table.board")) {
  const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells], written = [...body.rows];
  const sort = (column, up) => {
    for (const head of heads) head.removeAttribute("aria-sort");
    if (!heads[column]) return body.append(...written);
    heads[column].setAttribute("aria-sort", up ? "ascending" : "descending");
    body.append(...[...written].sort((a, b) => {
      const x = sortValue(a, column), y = sortValue(b, column);
      if (typeof x !== typeof y) return typeof x === "number" ? -1 : 1; // missing numbers stay below
      const order = typeof x === "number" ? x - y : x.localeCompare(y, "en", { numeric: true });
      return up ? order : -order;
    }));
  };
  const name = headingOf(table);
  tables.set(name, sort);
  heads.forEach((head, column) => {
    const text = head.textContent, button = make("button", { type: "button", text });
    head.replaceChildren(button);
    if (data.terms[text]) {
      const told = make("span", { id: `term-${tables.size}-${column}`, text: data.terms[text] });
      told.hidden = true;
      button.setAttribute("aria-describedby", told.id);
      head.append(told);
      explain(button, data.terms[text]);
    }
    button.addEventListener("click", () => {
      const now = head.getAttribute("aria-sort"); // words begin at A, numbers with the largest
      const words = written.every((row) => row.cells[column].dataset.sort === undefined);
      const up = now ? now === "descending" : words;
      const others = (state.get("sort") || "").split(",").filter((entry) => entry && !entry.startsWith(`${name}.`));
      remember({ sort: [...others, `${name}.${column}.${up ? "up" : "down"}`].join(",") });
      sort(column, up);
    });
  });
}
const filterRows = () => {
  const wanted = $("row-filter").value.trim().toLowerCase();
  let shown = 0;
  for (const row of document.querySelectorAll("table.board:not(.paper, .troubles) tbody tr")) {
    row.hidden = !row.cells[0].textContent.toLowerCase().includes(wanted);
    shown += !row.hidden;
  }
  $("row-count").textContent = !wanted ? "" : shown ? `${shown} lines match.` : "No row has this in its name.";
};
$("row-filter").addEventListener("input", () => { remember({ rows: $("row-filter").value.trim() }); filterRows(); });
restorers.push(() => {
  $("row-filter").value = state.get("rows") || "";
  filterRows();
  for (const sort of tables.values()) sort(-1, true);
  for (const entry of (state.get("sort") || "").split(",")) {
    const [name, column, way] = entry.split(".");
    tables.get(name)?.(Number(column), way === "up");
  }
});

// -- figures: a click shows one as large as the window -----------------------------------------------------------------
if ($("large")) {
  const enlarge = (figure) => {
    const image = figure.querySelector("img");
    $("large-image").src = image.src;
    $("large-image").alt = image.alt;
    $("large-text").textContent = image.alt;
    if (!$("large").open) $("large").showModal();
    remember({ figure: figure.id });
  };
  for (const button of document.querySelectorAll("button.enlarge")) {
    button.addEventListener("click", () => enlarge(button.closest("figure")));
  }
  $("large-close").addEventListener("click", () => $("large").close());
  $("large").addEventListener("click", (event) => { if (event.target === $("large")) $("large").close(); });
  $("large").addEventListener("close", () => remember({ figure: "" }));
  restorers.push(() => {
    const figure = state.get("figure") && $(state.get("figure"));
    if (figure && figure.tagName === "FIGURE") enlarge(figure);
    else if ($("large").open) $("large").close();
  });
}
