const factsOf = (row) => [
  ["Model", [row.model, row.variant].filter(Boolean).join(" @ ")],
  ["Family", row.family],
  ["Tier", row.tier],
  ["Device", textOf(row, "device")],
  ["Extractor", textOf(row, "extractor")],
  ["Seeds", (row.seeds || []).join(", ")],
  ["Parameters", formatNumber(row.parameters)],
  ["Training", seconds(row.training_seconds)],
  ["Checked at its source", row.tier === "reported" && row.confirmed !== undefined ? (row.confirmed ? "yes" : "no") : ""],
];

const sourceNode = (text) =>
  /^https?:\/\/\S+$/.test(text) ? make("a", { href: text, rel: "noopener noreferrer", target: "_blank" }, text) : text;

const recordNode = (path) =>
  /^(?![a-z][a-z0-9+.-]*:|\/)/i.test(path) ? make("a", { href: path }, path) : path;

const seedLines = (row, cell) => {
  const values = cell.seeds || [];
  if (!values.length) return "";
  const named = values.length === (row.seeds || []).length;
  const parts = values.map((value, index) => `${named ? `${row.seeds[index]}: ` : ""}${seedValue(cell, value)}`);
  return [parts.join(" · "), spreadText(cell) && make("small", {}, spreadText(cell))];
};

const valueRow = (row, metric) => {
  const cell = cellOf(row, metric.key);
  const head = make("th", { scope: "row" }, metric.label, unitOf(metric) ? make("small", {}, metric.unit) : "");
  if (cell.value === undefined) {
    return make("tr", {}, head, make("td", { colspan: 4, class: "reason" }, `${DASH} ${reasonText(cell)}`));
  }
  const place = rankText(cell) || "not ranked";
  return make(
    "tr",
    {},
    head,
    make(
      "td",
      {},
      valueText(cell, metric),
      isUnconfirmed(cell, row) ? make("small", {}, "not checked at its source") : "",
      intervalText(cell) && make("small", {}, intervalText(cell)),
      cell.reproduced && make("small", {}, "✓ measured again"),
      cell.reason && make("small", { class: "remark" }, cell.reason),
    ),
    make("td", {}, KINDS[cell.kind], cell.estimator && cell.estimator !== KINDS[cell.kind] ? make("small", {}, cell.estimator) : ""),
    make("td", {}, place, cell.group ? make("small", { class: "remark" }, groupWords(metric.key, cell.group)) : ""),
    make("td", {}, seedLines(row, cell)),
  );
};

const valuesTable = (row) => {
  const present = board.metrics.filter((metric) => row.cells[metric.key]);
  const heads = ["Metric", "Value", "Kind", "Rank", "By seed"].map((text) => make("th", { scope: "col" }, text));
  return make(
    "div",
    { class: "scroll", role: "region", "aria-label": "Values, scroll sideways", tabindex: "0" },
    make(
      "table",
      { class: "values" },
      make("caption", { class: "hidden" }, "Every value of this row"),
      make("thead", {}, make("tr", {}, ...heads)),
      make("tbody", {}, ...present.map((metric) => valueRow(row, metric))),
    ),
  );
};

const cardNode = (row) => {
  const card = make("div", { class: "card" });
  card.innerHTML = board.cards[row.card];
  return card;
};

const permanentLink = (row) => `${location.href.split("#")[0]}#row=${encodeURIComponent(row.id)}`;

const fillDetails = (row) => {
  const known = factsOf(row).filter(([, text]) => text !== undefined && text !== "");
  const copy = make("button", { type: "button", class: "quiet", onclick: () => copyText(permanentLink(row), copy) }, "Copy link");
  byId("details-title").textContent = row.label;
  byId("details-body").replaceChildren(
    make(
      "p",
      { class: "dialog-line" },
      tierTag(row.tier),
      row.control ? make("span", { class: "tag" }, "control") : "",
      make("a", { href: permanentLink(row), class: "permanent" }, "Permanent link"),
      copy,
    ),
    make(
      "div",
      { class: "dialog-top" },
      row.grid ? make("img", { src: row.grid, alt: `Samples of ${row.label}` }) : "",
      make(
        "dl",
        { class: "facts" },
        ...known.map(([term, text]) => make("div", {}, make("dt", {}, term), make("dd", {}, text))),
        row.source ? make("div", { class: "wide" }, make("dt", {}, "Source"), make("dd", {}, sourceNode(row.source))) : "",
        row.verified ? make("div", { class: "wide" }, make("dt", {}, "Measured again"), make("dd", {}, row.verified)) : "",
        row.record ? make("div", {}, make("dt", {}, "Record"), make("dd", {}, recordNode(row.record))) : "",
      ),
    ),
    make("h3", {}, "Values"),
    valuesTable(row),
    ...(row.card === undefined ? [] : [make("h3", {}, "Card"), cardNode(row)]),
  );
};

const copyText = async (text, button) => {
  const label = button.dataset.label || button.textContent;
  button.dataset.label = label;
  const done = (message) => {
    button.textContent = message;
    setTimeout(() => (button.textContent = label), 2000);
  };
  try {
    await navigator.clipboard.writeText(text);
    done("Copied");
  } catch {
    window.prompt("The browser did not let this page copy. The link:", text);
  }
};

const syncDialog = () => {
  const dialog = byId("details");
  const row = rows.get(state.row);
  if (!row) {
    if (dialog.open) dialog.close();
    return;
  }
  if (dialog.dataset.row !== row.id || !dialog.open) fillDetails(row);
  dialog.dataset.row = row.id;
  if (dialog.open) return;
  dialog.showModal();
  byId("details-title").focus();
  dialog.scrollTop = 0;
};

const focusRow = (id) => {
  const tr = [...byId("board").tBodies[0].rows].find((each) => each.dataset.row === id);
  if (!tr) {
    byId("main").focus();
    return;
  }
  tr.scrollIntoView({ block: "center" });
  tr.querySelector("a").focus({ preventScroll: true });
};

/* Browsers keep the page behind a modal dialog inert; this also keeps Tab from leaving it for the browser's own bars. */
const trapFocus = (event) => {
  if (event.key !== "Tab") return;
  const stops = [...byId("details").querySelectorAll("button, a[href], [tabindex='0'], pre")].filter((each) => each.offsetParent);
  const first = stops[0];
  const last = stops[stops.length - 1];
  if (!first) return;
  if (!event.shiftKey && document.activeElement === last) {
    event.preventDefault();
    first.focus();
  } else if (event.shiftKey && (document.activeElement === first || document.activeElement === byId("details-title"))) {
    event.preventDefault();
    last.focus();
  }
};

const bindDialog = () => {
  const dialog = byId("details");
  byId("close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("keydown", trapFocus);
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  // The event comes later than the closing: a step forward in the history may have opened the dialog again.
  dialog.addEventListener("close", () => {
    if (dialog.open) return;
    const id = dialog.dataset.row;
    if (state.row) change({ row: "" });
    focusRow(id);
  });
};
