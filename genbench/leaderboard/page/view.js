const board = JSON.parse(document.getElementById("data").textContent);
const metrics = new Map(board.metrics.map((metric) => [metric.key, metric]));
const rows = new Map(board.rows.map((row) => [row.id, row]));

/* What rows are filtered by, and where a row has it: one value, or several. */
const FILTERS = { family: "family", tier: "tier", device: "devices", extractor: "extractors" };
const SHOWN = { intervals: "95 % intervals", ranks: "Rank intervals", seeds: "Every seed", controls: "Control rows" };
const LENGTHS = [50, 100, 250, -1];
const FIRST_OF_GROUP = { first: 5, later: 2 };
const FEW_METRICS = 4;

const byId = (id) => document.getElementById(id);

const add = (element, ...children) =>
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));

const make = (tag, attributes = {}, ...children) => {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  add(element, ...children);
  return element;
};

const hidden = (text) => make("span", { class: "hidden" }, text);

const seconds = (value) => (value === undefined ? "" : `${formatNumber(value)} s`);

const valuesOf = (row, name) => [row[FILTERS[name]] ?? ""].flat().map(String);
const textOf = (row, name) => valuesOf(row, name).join(", ") || undefined;

const FACTS = [
  { key: "@family", label: "Family", value: (row) => row.family },
  { key: "@device", label: "Device", value: (row) => textOf(row, "device") },
  { key: "@extractor", label: "Extractor", value: (row) => textOf(row, "extractor") },
  { key: "@seeds", label: "Seeds", value: (row) => (row.seeds || []).length || undefined, text: (row) => (row.seeds || []).join(", ") },
  { key: "@parameters", label: "Parameters", value: (row) => row.parameters, text: (row) => formatNumber(row.parameters) },
  { key: "@training_seconds", label: "Training", value: (row) => row.training_seconds, text: (row) => seconds(row.training_seconds) },
  { key: "@source", label: "Source", value: (row) => row.source },
].filter((fact) => !metrics.has(fact.key.slice(1)) && board.rows.some((row) => fact.value(row) !== undefined));
const facts = new Map(FACTS.map((fact) => [fact.key, fact]));

const cellOf = (row, key) => row.cells[key] || {};
const measured = (row, key) => cellOf(row, key).value !== undefined;
const firstDirection = (key) => (metrics.get(key)?.higher_is_better ? "desc" : "asc");

const options = Object.fromEntries(
  Object.keys(FILTERS).map((name) => {
    const counts = new Map();
    for (const value of board.rows.flatMap((row) => valuesOf(row, name))) counts.set(value, (counts.get(value) || 0) + 1);
    return [name, new Map([...counts].sort(([a], [b]) => a.localeCompare(b)))];
  }),
);

/* At first: metrics that some row has, several of the first group and a few of each other; the source where there is room. */
const firstColumns = () => {
  const present = board.metrics.filter((metric) => board.rows.some((row) => measured(row, metric.key)));
  const limit = (metric) => (metric.group === present[0].group ? FIRST_OF_GROUP.first : FIRST_OF_GROUP.later);
  const place = (metric) => present.filter((each) => each.group === metric.group).indexOf(metric);
  const keys = present.filter((metric) => place(metric) < limit(metric)).map((metric) => metric.key);
  return keys.length <= FEW_METRICS && facts.has("@source") ? [...keys, "@source"] : keys;
};

const initialColumns = firstColumns();
const firstMetric = initialColumns.find((key) => metrics.has(key));
const DEFAULT = Object.freeze({
  q: "",
  sort: firstMetric ?? "@row",
  dir: firstDirection(firstMetric),
  group: "",
  family: [],
  tier: [],
  device: [],
  extractor: [],
  columns: initialColumns,
  show: ["intervals", "controls"],
  page: 1,
  length: 100,
  chart: 0,
  front: "",
  row: "",
});

let state = DEFAULT;

/* Rows that were measured alike stand together: the groups of one metric, ranked ones first, larger ones first. */
const sectionCache = new Map();
const sectionsOf = (key) => {
  if (sectionCache.has(key)) return sectionCache.get(key);
  const groups = new Map();
  for (const row of metrics.has(key) ? board.rows : []) {
    if (!measured(row, key)) continue;
    const group = cellOf(row, key).group || "";
    if (!groups.has(group)) groups.set(group, { group, rows: [], ranked: 0 });
    groups.get(group).rows.push(row);
    groups.get(group).ranked += Boolean(cellOf(row, key).rank);
  }
  const list = [...groups.values()].sort(
    (a, b) => (b.ranked > 0) - (a.ranked > 0) || b.rows.length - a.rows.length || a.group.localeCompare(b.group),
  );
  const found = { list, order: new Map(list.map((section, index) => [section.group, index])) };
  sectionCache.set(key, found);
  return found;
};

const sectionIndex = (row, key) => {
  const { list, order } = sectionsOf(key);
  return measured(row, key) ? order.get(cellOf(row, key).group || "") : list.length;
};

const groupWords = (key, group) => metrics.get(key).groups?.[group] || (group && `group ${group}`) || "";

const describeGroup = (section, key) => {
  const distinct = (value) => [...new Set(section.rows.map(value).filter(Boolean))];
  const words = metrics.get(key).groups?.[section.group];
  const parts = (words ? ["tier"] : ["tier", "extractor", "device"])
    .map((name) => distinct((row) => textOf(row, name)))
    .concat([section.ranked || words ? [] : distinct((row) => cellOf(row, key).reason)])
    .filter((values) => values.length && values.length < 4);
  const what = parts.map((values) => values.join(", ")).join(" · ");
  const rest = section.rows.length - section.ranked;
  const counts = [section.ranked && `${section.ranked} ranked`, rest && `${rest} not ranked`].filter(Boolean).join(", ");
  return [words || (section.group && `Group ${section.group}`), what, counts].filter(Boolean).join(" · ");
};

const haystacks = new Map();
const haystack = (row) => {
  if (!haystacks.has(row.id)) {
    const parts = ["label", "model", "variant", "family", "tier", "devices", "extractors", "source", "id"];
    haystacks.set(row.id, parts.flatMap((name) => row[name] ?? "").join("\n").toLowerCase());
  }
  return haystacks.get(row.id);
};

const passes = (row) =>
  (state.show.includes("controls") || !row.control) &&
  Object.keys(FILTERS).every((name) => !state[name].length || valuesOf(row, name).some((value) => state[name].includes(value))) &&
  (!state.group || (measured(row, state.sort) && (cellOf(row, state.sort).group || "") === state.group)) &&
  state.q.toLowerCase().split(/\s+/).every((word) => haystack(row).includes(word));

/* The address: only what differs from the default, so that short views have short links. */
const toHash = (view) => {
  const parameters = new URLSearchParams();
  const usual = { ...DEFAULT, dir: firstDirection(view.sort) };
  for (const [name, value] of Object.entries(view)) {
    if (JSON.stringify(value) === JSON.stringify(usual[name])) continue;
    if (!Array.isArray(value)) parameters.set(name, value);
    else for (const item of value.length ? value : [""]) parameters.append(name, item);
  }
  return parameters.toString();
};

const known = {
  sort: (text) => metrics.has(text) || facts.has(text) || text === "@row",
  dir: (text) => text === "asc" || text === "desc",
  length: (text) => LENGTHS.includes(Number(text)),
  page: (text) => /^[1-9]\d{0,5}$/.test(text),
  chart: (text) => text === "1",
  row: (text) => rows.has(text),
};

const fromHash = (hash) => {
  const parameters = new URLSearchParams(hash.replace(/^#/, ""));
  const view = { ...DEFAULT };
  for (const name of Object.keys(DEFAULT)) {
    if (!parameters.has(name)) continue;
    const texts = parameters.getAll(name);
    if (name === "columns") view.columns = allColumns().filter((key) => texts.includes(key));
    else if (name === "show") view.show = Object.keys(SHOWN).filter((key) => texts.includes(key));
    else if (name in options) view[name] = [...options[name].keys()].filter((key) => texts.includes(key));
    else if (!known[name] || known[name](texts[0])) view[name] = typeof DEFAULT[name] === "number" ? Number(texts[0]) : texts[0];
  }
  if (!parameters.has("dir")) view.dir = firstDirection(view.sort);
  if (!sectionsOf(view.sort).order.has(view.group)) view.group = "";
  return view;
};

const allColumns = () => [...metrics.keys(), ...facts.keys()];
