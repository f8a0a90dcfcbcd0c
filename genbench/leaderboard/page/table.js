const COLUMNS = ["@rank", "@row", ...allColumns()];
const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });
let table = null;

const sign = { asc: 1, desc: -1 };
const compareFacts = (direction) => (a, b) => {
  if (a === null || b === null) return (a === null) - (b === null);
  return sign[direction] * (typeof a === "number" && typeof b === "number" ? a - b : collator.compare(String(a), String(b)));
};
for (const direction of ["asc", "desc"]) {
  DataTable.ext.type.order[`fact-${direction}`] = compareFacts(direction);
  DataTable.ext.type.order[`metric-${direction}`] = (a, b) => a.section - b.section || sign[direction] * (a.value - b.value);
}

const sortable = (key) => {
  if (metrics.has(key)) return (row) => ({ section: sectionIndex(row, key), value: cellOf(row, key).value ?? 0 });
  if (facts.has(key)) return (row) => facts.get(key).value(row) ?? null;
  return (row) => (key === "@row" ? row.label : null);
};

const isShown = (key) => key === "@rank" || key === "@row" || state.columns.includes(key);

/* Cells are filled when their row is drawn and their column shown: of a thousand rows most never are. */
const fill = (td, row) => {
  const key = td.dataset.column;
  if (td.hasChildNodes() || key === "@rank") return;
  if (key === "@row") fillName(td, row);
  else if (metrics.has(key)) fillCell(td, row, metrics.get(key));
  else fillFact(td, row, facts.get(key));
};

const definition = (key) => {
  const value = sortable(key);
  return {
    name: key,
    data: null,
    type: metrics.has(key) ? "metric" : "fact",
    searchable: false,
    cellType: key === "@row" ? "th" : "td",
    className: { "@rank": "place", "@row": "name" }[key] || (metrics.has(key) ? "" : "text"),
    visible: isShown(key),
    ariaTitle: titleOf(key),
    render: (data, type, row) => (type === "sort" ? value(row) : ""),
    createdCell: (td) => {
      td.dataset.column = key;
    },
  };
};

const titleOf = (key) => ({ "@rank": "Rank", "@row": "Row" })[key] || metrics.get(key)?.label || facts.get(key).label;

const headCell = (key) => {
  if (key === "@rank") return make("th", { scope: "col", class: "place" }, "Rank");
  const metric = metrics.get(key);
  const better = metric && metric.higher_is_better !== undefined ? metric.higher_is_better : null;
  const button = make(
    "button",
    { type: "button", "data-sort": key, title: metric?.meaning },
    metric ? shortLabel(metric) : titleOf(key),
    better === null ? "" : make("span", { class: "arrow", "aria-hidden": "true" }, better ? " ↑" : " ↓"),
    better === null ? "" : hidden(better ? ", higher is better" : ", lower is better"),
    metric?.extractor && shortLabel(metric) !== metric.label ? make("small", {}, metric.extractor) : "",
    metric && unitOf(metric) ? make("small", {}, metric.unit) : "",
  );
  return make("th", { scope: "col" }, button);
};

const rankOf = (row) => (metrics.has(state.sort) ? rankText(cellOf(row, state.sort)) : "");

const sectionRow = (index) => {
  const section = sectionsOf(state.sort).list[index];
  const span = table.columns(":visible").count();
  const text = section ? describeGroup(section, state.sort) : `No value of ${titleOf(state.sort)}`;
  return make("tr", { class: "section" }, make("th", { colspan: span, scope: "rowgroup" }, make("span", {}, text)));
};

const markSections = () => {
  const body = byId("board").tBodies[0];
  if (sectionsOf(state.sort).list.length < 2) return;
  let last = -1;
  for (const tr of [...body.rows].filter((each) => each.dataset.row)) {
    const index = sectionIndex(rows.get(tr.dataset.row), state.sort);
    if (index !== last) tr.before(sectionRow(index));
    last = index;
  }
};

const markHead = () => {
  for (const th of byId("board").tHead.rows[0].cells) {
    const key = th.querySelector("[data-sort]")?.dataset.sort;
    if (key && key === state.sort) th.setAttribute("aria-sort", state.dir === "asc" ? "ascending" : "descending");
    else th.removeAttribute("aria-sort");
  }
};

const buildTable = () => {
  byId("board").tHead.rows[0].append(...COLUMNS.map(headCell));
  table = new DataTable("#board", {
    data: board.rows,
    columns: COLUMNS.map(definition),
    autoWidth: false,
    orderHandler: false,
    orderIndicators: false,
    orderClasses: false,
    orderDescReverse: false,
    order: [],
    processing: false,
    pageLength: state.length,
    layout: { topStart: null, topEnd: null, bottomStart: null, bottomEnd: null },
    language: { zeroRecords: "No row fits. Reset shows all of them.", emptyTable: "This leaderboard has no rows yet." },
    createdRow: (tr, row) => {
      tr.dataset.row = row.id;
    },
    rowCallback: (tr, row) => {
      for (const td of tr.cells) fill(td, row);
      tr.cells[0].replaceChildren(rankOf(row) || hidden("not ranked"));
      tr.classList.toggle("current", row.id === state.row);
    },
    drawCallback: () => {
      if (table) markSections();
    },
  });
  table.search.fixed("view", (text, row) => passes(row));
};

const shownColumns = () => COLUMNS.slice(2).filter((key) => state.columns.includes(key));

const rowsInView = () => table.rows({ order: "applied", search: "applied" }).data().toArray();

const showColumn = (key, index) => {
  const column = table.column(index);
  if (column.visible() !== isShown(key)) column.visible(isShown(key), false);
};

const drawTable = () => {
  COLUMNS.forEach(showColumn);
  const element = byId("board");
  for (const name of ["intervals", "ranks", "seeds"]) element.classList.toggle(`no-${name}`, !state.show.includes(name));
  element.classList.toggle("no-place", !sectionsOf(state.sort).list.some((section) => section.ranked));
  table.order([[COLUMNS.indexOf(state.sort), state.dir]]);
  table.page.len(state.length);
  table.draw();
  const { pages } = table.page.info();
  const page = Math.min(state.page, Math.max(pages, 1));
  if (page > 1) table.page(page - 1).draw("page");
  markHead();
  drawPages();
};

/* Brings the row's page into view where the row passes the filters; false where it does not. */
const showPageOf = (id) => {
  const index = rowsInView().findIndex((row) => row.id === id);
  if (index < 0) return false;
  const page = state.length < 0 ? 1 : Math.floor(index / state.length) + 1;
  state = { ...state, page };
  return true;
};

const pageButton = (label, page, { disabled = false, current = false, name = label } = {}) =>
  make("button", { type: "button", class: "quiet", "data-page": page, disabled, "aria-current": current && "page", "aria-label": name }, label);

const drawPages = () => {
  const { page, pages, recordsDisplay } = table.page.info();
  const holder = byId("pages");
  const focused = holder.contains(document.activeElement) ? document.activeElement.dataset.page : null;
  const near = [...Array(pages).keys()].filter((each) => each === 0 || each === pages - 1 || Math.abs(each - page) < 2);
  const buttons = near.flatMap((each, index) => [
    index && each - near[index - 1] > 1 ? make("span", { "aria-hidden": "true" }, "…") : "",
    pageButton(String(each + 1), each + 1, { current: each === page, name: `Page ${each + 1}` }),
  ]);
  const length = make("select", { id: "length" }, ...LENGTHS.map((each) => make("option", { value: each }, each < 0 ? "all" : String(each))));
  length.value = String(state.length);
  length.addEventListener("change", () => change({ length: Number(length.value), page: 1 }));
  holder.replaceChildren(
    recordsDisplay > LENGTHS[0] ? make("label", { class: "pick" }, make("span", {}, "Rows a page"), " ", length) : "",
    pages > 1 ? make("nav", { "aria-label": "Pages" }, ...buttons) : "",
  );
  if (focused) holder.querySelector(`[data-page="${focused}"]`)?.focus();
};
