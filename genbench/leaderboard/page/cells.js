const MARKS = { upper_bound: "≤", lower_bound: "≥" };
const KINDS = { exact: "exact", upper_bound: "upper bound", lower_bound: "lower bound", estimate: "estimate" };
const DASH = "–";

const formats = new Map();
const withDecimals = (value, decimals) => {
  if (!formats.has(decimals)) {
    formats.set(decimals, new Intl.NumberFormat("en", { minimumFractionDigits: decimals, maximumFractionDigits: decimals }));
  }
  return formats.get(decimals).format(value).replace(/^-/, "−");
};

const formatNumber = (value) => {
  if (value === undefined || value === null) return "";
  if (Number.isInteger(value)) return withDecimals(value, 0);
  const size = Math.abs(value);
  if (size >= 1000 && size < 1e6) return withDecimals(value, 0);
  const digits = size >= 1e6 || size < 1e-4 ? value.toPrecision(3) : String(Number(value.toPrecision(4)));
  return digits.replace(/^-/, "−");
};

/* ``value`` written as the cell writes its own: its decimals, per cent where it says so, else four digits. */
const formatLike = (cell, value, more = 0) => {
  const text = (cell.text || "").replace("−", "-");
  const digits = text.match(/-?[\d,]+(?:\.(\d+))?/);
  if (!digits) return formatNumber(value);
  const decimals = (digits[1] || "").length;
  const percent = text.includes("%");
  const scale = percent ? 100 : 1;
  const shown = Number(digits[0].replaceAll(",", ""));
  if (Math.abs(cell.value * scale - shown) > 0.51 * 10 ** -decimals) return formatNumber(value);
  const written = withDecimals(value * scale, decimals + more);
  return percent ? `${written} %` : written;
};

const unitOf = (metric) => (metric.unit && !metric.label.toLowerCase().includes(metric.unit.toLowerCase()) ? metric.unit : "");

const shortLabel = (metric) => (metric.extractor ? metric.label.replace(` (${metric.extractor})`, "") : metric.label);

const isLikelihood = (metric) => /likelihood/i.test(metric.group || "");

/* A bound always says so; an estimate does where the truth could have been exact, as a likelihood could. */
const markOf = (cell, metric) => {
  if (/^[≤≥~]/.test(cell.text || "")) return "";
  return MARKS[cell.kind] || (cell.kind === "estimate" && isLikelihood(metric) ? "~" : "");
};

const valueText = (cell, metric) =>
  [markOf(cell, metric), (cell.text || formatNumber(cell.value)).replace(/\s*\?$/, "")].filter(Boolean).join(" ");

const intervalText = (cell) => {
  if (cell.interval) return cell.interval;
  if (cell.low === undefined || cell.high === undefined) return "";
  return `[${formatLike(cell, cell.low)}, ${formatLike(cell, cell.high)}]`;
};

const rankText = (cell) => {
  if (!cell.rank) return "";
  const [low, high] = cell.rank;
  return low === high ? String(low) : `${low}–${high}`;
};

const reasonText = (cell) => {
  const status = cell.status && cell.status !== "ok" ? cell.status.replaceAll("_", " ") : "";
  return [status, cell.reason].filter(Boolean).join(": ") || "not measured";
};

const seedValue = (cell, value) => (value === null ? DASH : formatLike(cell, value));

const spreadText = (cell) =>
  cell.spread === undefined ? "" : `mean ${formatLike(cell, cell.value)}, SD ${formatLike(cell, cell.spread, 1)}`;

const seedsText = (cell) =>
  `${(cell.seeds || []).map((value) => seedValue(cell, value)).join(" · ")} (${spreadText(cell) || "one seed"})`;

const isUnconfirmed = (cell, row) => (cell.confirmed ?? row.confirmed) === false;

const passport = (cell, metric) =>
  [
    KINDS[cell.kind],
    cell.estimator,
    cell.rank && `rank ${rankText(cell)}`,
    cell.group && `measured: ${groupWords(metric.key, cell.group)}`,
    cell.reproduced && "measured again with the same outcome",
    unitOf(metric) && `in ${metric.unit}`,
    cell.seeds && `seeds: ${seedsText(cell)}`,
    cell.reason,
  ]
    .filter(Boolean)
    .join("; ");

const fillMissing = (cell, td) => {
  td.classList.add(cell.status === "failed" ? "failed" : "dash");
  td.title = reasonText(cell);
  td.append(make("span", { "aria-hidden": "true" }, cell.status === "failed" ? "failed" : DASH), hidden(reasonText(cell)));
};

const fillCell = (td, row, metric) => {
  const cell = cellOf(row, metric.key);
  if (cell.value === undefined) {
    fillMissing(cell, td);
    return;
  }
  const alone = !cell.rank || sectionsOf(metric.key).list[sectionIndex(row, metric.key)].ranked < 2;
  const best = !alone && cell.rank[0] === 1;
  td.classList.toggle("best", best);
  td.title = passport(cell, metric);
  const estimator = isLikelihood(metric) && cell.estimator && cell.estimator !== "exact" ? cell.estimator : "";
  add(
    td,
    valueText(cell, metric),
    isUnconfirmed(cell, row) ? make("sup", { title: "not checked at its source" }, "?", hidden(" not checked at its source")) : "",
    cell.reproduced && make("span", { class: "again", "aria-hidden": "true" }, " ✓"),
    hidden(` ${KINDS[cell.kind]}${best ? (cell.rank[1] === 1 ? ", best" : ", may be the best") : ""}${cell.reproduced ? ", measured again" : ""}`),
    intervalText(cell) && make("small", { class: "interval" }, intervalText(cell)),
    estimator && make("small", {}, estimator),
    cell.rank && make("small", { class: "rank" }, `rank ${rankText(cell)}`),
    cell.seeds && cell.seeds.length > 1 ? make("small", { class: "seeds" }, seedsText(cell)) : "",
  );
};

const factText = (fact, row) => (fact.value(row) === undefined ? "" : fact.text ? fact.text(row) : String(fact.value(row)));

const fillFact = (td, row, fact) => {
  const text = factText(fact, row);
  td.classList.add(text ? "fact" : "dash");
  td.append(text || DASH);
  if (!text) td.append(hidden("not stated"));
};

const tierTag = (tier) => make("span", { class: `tag ${tier}` }, tier);

const fillName = (th, row) => {
  th.scope = "row";
  const about = [row.family, row.control && row.family !== "control" && "control"].filter(Boolean).join(" · ");
  th.append(
    make("a", { href: `#row=${encodeURIComponent(row.id)}`, class: "row-name" }, row.label),
    make("span", { class: "about" }, make("small", {}, about), " ", tierTag(row.tier)),
  );
};
