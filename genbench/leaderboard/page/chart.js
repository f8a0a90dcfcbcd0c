const CHART_COLOURS = 8;
const families = [...new Set(board.rows.filter((row) => !row.control).map((row) => row.family))];
const escapeText = (text) => String(text).replace(/[&<>]/g, (sign) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;" })[sign]);
const themeColour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/* Fronts with their points: rows whose two figures were measured as those of the front were. */
const fronts = board.pareto.map((front) => {
  const [quality, cost] = front.groups;
  const within = (row, key, group) => measured(row, key) && (cellOf(row, key).group || "") === group;
  return {
    ...front,
    pair: `${front.quality}~${front.cost}`,
    key: [front.quality, front.cost, quality, cost].join("~"),
    rows: board.rows.filter((row) => within(row, front.quality, quality) && within(row, front.cost, cost)),
    best: front.rows.map((id) => rows.get(id)),
  };
});

const loadCharts = () => {
  if (window.Plotly) return;
  const script = document.createElement("script");
  script.textContent = byId("chart-library").textContent;
  document.head.append(script);
};

const errorBars = (members, key) => {
  const cells = members.map((row) => cellOf(row, key));
  const reach = (cell, side) => (cell[side] === undefined ? 0 : Math.abs(cell[side] - cell.value));
  return {
    type: "data",
    symmetric: false,
    array: cells.map((cell) => reach(cell, "high")),
    arrayminus: cells.map((cell) => reach(cell, "low")),
    thickness: 1,
    width: 0,
  };
};

const trace = (family, front) => {
  const members = front.rows.filter((row) => (row.control ? "control" : row.family) === family);
  const best = new Set(front.best.map((row) => row.id));
  const colour = family === "control" ? themeColour("--muted") : themeColour(`--c${families.indexOf(family) % CHART_COLOURS}`);
  return {
    type: "scatter",
    mode: front.rows.length <= 40 ? "markers+text" : "markers",
    name: escapeText(family),
    x: members.map((row) => cellOf(row, front.cost).value),
    y: members.map((row) => cellOf(row, front.quality).value),
    error_y: { ...errorBars(members, front.quality), color: colour },
    text: members.map((row) => (best.has(row.id) ? escapeText(row.label) : "")),
    textposition: "top center",
    textfont: { size: 11, color: themeColour("--text") },
    customdata: members.map((row) => row.id),
    hovertext: members.map((row) => pointText(row, front)),
    hoverinfo: "text",
    marker: {
      size: members.map((row) => (best.has(row.id) ? 11 : 8)),
      symbol: members.map((row) => (best.has(row.id) ? "circle" : "circle-open")),
      color: colour,
      line: { color: colour, width: 1.5 },
    },
  };
};

const pointText = (row, front) =>
  [`<b>${escapeText(row.label)}</b> ${escapeText(row.tier)}`]
    .concat([front.quality, front.cost].map((key) => `${escapeText(metrics.get(key).label)} ${escapeText(valueText(cellOf(row, key), metrics.get(key)))}`))
    .join("<br>");

const axisTitle = (key) => {
  const metric = metrics.get(key);
  const better = metric.higher_is_better === undefined ? "" : metric.higher_is_better ? ", higher is better" : ", lower is better";
  return escapeText(`${metric.label}${unitOf(metric) ? ` (${metric.unit})` : ""}${better}`);
};

const axis = (key, front) => {
  const values = front.rows.map((row) => cellOf(row, key).value);
  const wide = Math.min(...values) > 0 && Math.max(...values) > 20 * Math.min(...values);
  const colours = { gridcolor: themeColour("--grid"), linecolor: themeColour("--line"), tickcolor: themeColour("--line") };
  const scale = wide ? { type: "log", dtick: 1 } : { type: "linear" };
  return { title: { text: axisTitle(key), standoff: 8 }, zeroline: false, automargin: true, fixedrange: true, ...colours, ...scale };
};

const chartLayout = (front) => ({
  height: 420,
  margin: { l: 8, r: 12, t: 12, b: 8 },
  paper_bgcolor: "rgba(0,0,0,0)",
  plot_bgcolor: "rgba(0,0,0,0)",
  font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: themeColour("--muted") },
  hoverlabel: { bgcolor: themeColour("--surface"), bordercolor: themeColour("--line"), font: { color: themeColour("--text") } },
  legend: { orientation: "h", y: -0.2 },
  showlegend: true,
  dragmode: false,
  hovermode: "closest",
  xaxis: axis(front.cost, front),
  yaxis: axis(front.quality, front),
});

const chosenFront = () => fronts.find((front) => front.key === state.front) || fronts[0];

const groupText = (front) => {
  const words = [front.quality, front.cost].map((key, place) => groupWords(key, front.groups[place]) || "any");
  return `${words.join(" and ")} · ${front.rows.length} row${front.rows.length === 1 ? "" : "s"}`;
};

const syncFrontPicks = (chosen) => {
  const pairs = new Map(fronts.map((front) => [front.pair, front]).reverse());
  const pairText = (front) => `${metrics.get(front.quality).label} against ${metrics.get(front.cost).label}`;
  const option = (front, text) => make("option", { value: front.key }, text);
  const alike = fronts.filter((front) => front.pair === chosen.pair);
  byId("front").replaceChildren(...[...pairs.values()].reverse().map((front) => option(front, pairText(front))));
  byId("front").value = pairs.get(chosen.pair).key;
  byId("front-group").replaceChildren(...alike.map((front) => option(front, groupText(front))));
  byId("front-group").value = chosen.key;
  byId("front-group-pick").hidden = alike.length < 2;
};

const drawChart = () => {
  if (!byId("chart") || !byId("chart").open) return;
  loadCharts();
  const front = chosenFront();
  syncFrontPicks(front);
  const shown = [...new Set(front.rows.map((row) => (row.control ? "control" : row.family)))];
  const plot = byId("plot");
  plot.setAttribute("aria-label", `${metrics.get(front.quality).label} against ${metrics.get(front.cost).label}; the rows on the front are listed below`);
  const traces = shown.map((family) => trace(family, front));
  Plotly.react(plot, traces, chartLayout(front), { responsive: true, displayModeBar: false }).then(() => {
    plot.removeAllListeners("plotly_click");
    plot.on("plotly_click", (event) => openRow(event.points[0].customdata));
  });
  const link = (row) => make("a", { href: `#row=${encodeURIComponent(row.id)}`, "data-open": row.id }, row.label);
  byId("front-rows").replaceChildren(...front.best.map((row) => make("li", {}, link(row))));
};

const bindChart = () => {
  if (!byId("chart")) return;
  byId("chart").addEventListener("toggle", () => {
    const open = byId("chart").open ? 1 : 0;
    if (open !== state.chart) change({ chart: open });
    else drawChart();
  });
  for (const pick of [byId("front"), byId("front-group")]) {
    pick.addEventListener("change", () => change({ front: pick.value }));
  }
};
