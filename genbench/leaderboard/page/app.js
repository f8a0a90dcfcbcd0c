const THEMES = ["system", "light", "dark"];
const CSV_FIELDS = ["value", "low", "high", "kind", "estimator", "group", "measured", "rank_low", "rank_high", "seeds", "reproduced", "status", "reason"];

const write = (push = false) => {
  const hash = toHash(state);
  if (hash === location.hash.slice(1)) return;
  const address = `${location.href.split("#")[0]}${hash ? `#${hash}` : ""}`;
  history[push ? "pushState" : "replaceState"](null, "", address);
};

const VIEW_KEYS = Object.keys(DEFAULT).filter((name) => !["row", "chart", "front"].includes(name));
const viewKey = (view) => JSON.stringify(VIEW_KEYS.map((name) => view[name]));
let drawn = "";

const refresh = () => {
  syncControls();
  if (viewKey(state) !== drawn) {
    drawTable();
    drawn = viewKey(state);
    announce();
  }
  for (const tr of byId("board").tBodies[0].rows) tr.classList.toggle("current", tr.dataset.row === state.row && Boolean(state.row));
  if (byId("chart")) byId("chart").open = Boolean(state.chart);
  drawChart();
  syncDialog();
};

const change = (patch, { push = false } = {}) => {
  state = { ...state, ...patch };
  write(push);
  refresh();
};

const openRow = (id) => change({ row: id }, { push: true });

const sortBy = (key) => {
  const same = key === state.sort;
  const dir = same ? (state.dir === "asc" ? "desc" : "asc") : firstDirection(key);
  change({ sort: key, dir, group: same ? state.group : "", page: 1 });
};

const announce = () => {
  const { recordsDisplay, recordsTotal, start, end } = table.page.info();
  const count = recordsDisplay === recordsTotal ? `${recordsTotal}` : `${recordsDisplay} of ${recordsTotal}`;
  const part = recordsDisplay > end - start ? `, ${start + 1} to ${end} shown` : "";
  const direction = state.dir === "asc" ? "ascending" : "descending";
  byId("status").textContent = `${count} row${recordsTotal === 1 ? "" : "s"}${part}. Sorted by ${titleOf(state.sort)}, ${direction}.`;
};

const checkbox = (name, value, text) =>
  make("label", {}, make("input", { type: "checkbox", name, value }), make("span", {}, text));

const fillMenu = (menu, name) => {
  const panel = menu.querySelector("fieldset");
  if (name === "show") panel.append(...Object.entries(SHOWN).map(([key, text]) => checkbox(name, key, text)));
  else if (name === "column") fillColumns(panel);
  else panel.append(...[...options[name]].map(([value, count]) => checkbox(name, value, `${value || "not stated"} (${count})`)));
  menu.hidden = name in options && options[name].size < 2;
};

const fillColumns = (panel) => {
  const sets = { all: allColumns(), none: [], default: DEFAULT.columns };
  const quick = Object.entries(sets).map(([text, columns]) =>
    make("button", { type: "button", class: "quiet", onclick: () => change({ columns }) }, text),
  );
  panel.append(make("div", { class: "quick", role: "group", "aria-label": "Choose columns" }, ...quick));
  const groups = new Map();
  for (const metric of metrics.values()) {
    const group = metric.group || "Metrics";
    groups.set(group, [...(groups.get(group) || []), [metric.key, metric.label]]);
  }
  groups.set("About the row", FACTS.map((fact) => [fact.key, fact.label]));
  for (const [group, columns] of groups) {
    if (!columns.length) continue;
    const boxes = columns.map(([key, label]) => checkbox("columns", key, label));
    panel.append(make("fieldset", {}, make("legend", {}, group), ...boxes));
  }
};

const fillControls = () => {
  for (const menu of document.querySelectorAll(".menu")) fillMenu(menu, menu.dataset.filter);
  byId("metric").append(
    make("option", { value: "@row" }, "no metric"),
    ...[...metrics.values()].map((metric) => make("option", { value: metric.key }, metric.label)),
  );
};

const syncGroups = () => {
  const { list } = sectionsOf(state.sort);
  byId("group-pick").hidden = list.length < 2;
  byId("group").replaceChildren(
    make("option", { value: "" }, "all, in sections"),
    ...list.map((section) => make("option", { value: section.group }, describeGroup(section, state.sort))),
  );
  byId("group").value = state.group;
};

const syncControls = () => {
  if (document.activeElement !== byId("search")) byId("search").value = state.q;
  byId("metric").value = metrics.has(state.sort) ? state.sort : "@row";
  syncGroups();
  for (const box of document.querySelectorAll(".menu input")) box.checked = state[box.name].includes(box.value);
  for (const menu of document.querySelectorAll(".menu[data-filter]")) {
    const chosen = state[menu.dataset.filter] || [];
    const text = menu.dataset.filter in options && chosen.length ? ` ${chosen.length}` : "";
    menu.querySelector(".chosen").textContent = text;
    menu.classList.toggle("active", Boolean(text));
  }
};

const toggled = (name, value, on) => {
  const all = { columns: allColumns(), show: Object.keys(SHOWN) }[name] || [...options[name].keys()];
  const chosen = new Set(state[name]);
  if (on) chosen.add(value);
  else chosen.delete(value);
  return all.filter((each) => chosen.has(each));
};

const bindControls = () => {
  let waiting = 0;
  byId("controls").addEventListener("submit", (event) => event.preventDefault());
  byId("search").addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => change({ q: byId("search").value.trim(), page: 1 }), 120);
  });
  byId("metric").addEventListener("change", (event) =>
    change({ sort: event.target.value, dir: firstDirection(event.target.value), group: "", page: 1 }),
  );
  byId("group").addEventListener("change", (event) => change({ group: event.target.value, page: 1 }));
  byId("controls").addEventListener("change", ({ target }) => {
    if (target.type !== "checkbox") return;
    const paged = target.name === "columns" ? {} : { page: 1 };
    change({ [target.name]: toggled(target.name, target.value, target.checked), ...paged });
  });
  byId("reset").addEventListener("click", () => {
    byId("search").value = "";
    change({ ...DEFAULT, chart: state.chart, front: state.front });
  });
};

const closeMenus = (except = null) => {
  for (const menu of document.querySelectorAll(".menu[open]")) if (menu !== except) menu.open = false;
};

const bindMenus = () => {
  document.addEventListener("click", (event) => closeMenus(event.target.closest(".menu")));
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    const menu = event.target.closest(".menu");
    if (menu) menu.querySelector("summary").focus();
    closeMenus();
  });
  document.addEventListener("focusin", (event) => closeMenus(event.target.closest(".menu")));
};

const plainClick = (event) => event.button === 0 && !event.metaKey && !event.ctrlKey && !event.shiftKey && !event.altKey;

const bindTable = () => {
  byId("board").addEventListener("click", (event) => {
    const key = event.target.closest("[data-sort]")?.dataset.sort;
    if (key) sortBy(key);
    const head = event.target.closest("th.name");
    if (head && plainClick(event)) {
      event.preventDefault();
      openRow(head.closest("tr").dataset.row);
    }
  });
  byId("front-rows")?.addEventListener("click", (event) => {
    if (!event.target.dataset.open || !plainClick(event)) return;
    event.preventDefault();
    openRow(event.target.dataset.open);
  });
  byId("pages").addEventListener("click", (event) => {
    const page = Number(event.target.dataset.page);
    if (!page) return;
    change({ page });
    document.querySelector("main > .scroll").scrollTop = 0;
  });
};

/* A cell that a spreadsheet would take for a formula gets an apostrophe; numbers are left as they are. Several seeds
   stand in brackets, which keep a first one below zero from being a formula. */
const csvCell = (value) => {
  if (value === undefined || value === null) return "";
  if (typeof value === "number") return String(value);
  const text = /^[=+\-@\t\r\uFF1D\uFF0B\uFF0D\uFF20]/.test(value) ? `'${value}` : String(value);
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
};

const csvFields = (cell, key) => ({
  ...cell,
  measured: cell.group && groupWords(key, cell.group),
  reproduced: cell.reproduced ? "yes" : "",
  rank_low: cell.rank?.[0],
  rank_high: cell.rank?.[1],
  seeds: cell.seeds?.length ? `[${cell.seeds.map((value) => value ?? "-").join(" ")}]` : "",
  status: cell.status || (cell.value === undefined ? "missing" : "ok"),
});

const csvText = () => {
  const names = ["id", "label", "tier", "model", "variant", "family", "device", "extractor", "source", "confirmed"];
  const shown = shownColumns();
  const head = [...names, ...shown.flatMap((key) => (metrics.has(key) ? CSV_FIELDS.map((field) => `${key}:${field}`) : [titleOf(key)]))];
  const lines = rowsInView().map((row) => [
    ...names.map((name) => (name in FILTERS ? textOf(row, name) : row[name])),
    ...shown.flatMap((key) => {
      if (!metrics.has(key)) return [factText(facts.get(key), row)];
      const fields = csvFields(cellOf(row, key), key);
      return CSV_FIELDS.map((field) => fields[field]);
    }),
  ]);
  return [head, ...lines].map((line) => line.map(csvCell).join(",")).join("\r\n") + "\r\n";
};

const download = () => {
  const address = URL.createObjectURL(new Blob(["\ufeff", csvText()], { type: "text/csv;charset=utf-8" }));
  const link = make("a", { href: address, download: `${board.suite.replace(/[^\w.-]+/g, "_")}.csv` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
};

const setTheme = (theme) => {
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  byId("theme").textContent = `Theme: ${theme}`;
  try {
    localStorage.setItem("genbench-theme", theme);
  } catch {
    /* A browser that keeps nothing for files still switches. */
  }
  drawChart();
};

const storedTheme = () => {
  try {
    const theme = localStorage.getItem("genbench-theme");
    return THEMES.includes(theme) ? theme : "system";
  } catch {
    return "system";
  }
};

const readAddress = () => {
  const before = state.row;
  state = fromHash(location.hash);
  if (state.row && state.row !== before) showLinkedRow();
  refresh();
};

/* A link to a row shows it even where the rest of the address would not list it. */
const showLinkedRow = () => {
  const page = state.page;
  drawTable();
  drawn = "";
  if (!showPageOf(state.row)) state = { ...state, page };
};

const start = () => {
  state = fromHash(location.hash);
  byId("theme").addEventListener("click", () => {
    const now = document.documentElement.dataset.theme || "system";
    setTheme(THEMES[(THEMES.indexOf(now) + 1) % THEMES.length]);
  });
  byId("csv").addEventListener("click", download);
  byId("copy").addEventListener("click", () => copyText(location.href, byId("copy")));
  fillControls();
  buildTable();
  for (const bind of [bindControls, bindMenus, bindTable, bindDialog, bindChart]) bind();
  setTheme(storedTheme());
  if (state.row) showLinkedRow();
  refresh();
  window.addEventListener("hashchange", readAddress);
  window.addEventListener("popstate", readAddress);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawChart);
};

start();
