(() => {
  "use strict";

  const root = document.documentElement;
  const specs = JSON.parse(document.getElementById("chart-data").textContent);
  const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();

  const themed = (value, key = "") => {
    if (Array.isArray(value)) return value.map((item) => themed(item, key));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, themed(item, name)]));
    }
    return typeof value === "string" && key.endsWith("color") && value.startsWith("--") ? colour(value) : value;
  };

  const drawOne = (spec) => {
    const place = document.getElementById(spec.id);
    Plotly.react(place, themed(spec.data), themed(spec.layout), { responsive: true, displayModeBar: false });
  };

  // Charts in sight at once, the others one by one between the reader's own events, so that many do not hold up the page.
  let turn = 0;
  const draw = () => {
    const mine = ++turn;
    const rest = [...specs];
    const inSight = (spec) => document.getElementById(spec.id).getBoundingClientRect().top < window.innerHeight;
    while (rest.length && inSight(rest[0])) drawOne(rest.shift());
    const next = () => {
      if (mine !== turn || !rest.length) return;
      drawOne(rest.shift());
      setTimeout(next);
    };
    setTimeout(next);
  };

  const save = (name, type, text) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  };

  const field = (value) => {
    const text = value === null || value === undefined ? "" : String(value);
    const safe = /^[=+\-@\t\r\n\uFF1D\uFF0B\uFF0D\uFF20]/.test(text) && !Number.isFinite(Number(text)) ? `'${text}` : text;
    return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  const csv = (rows) => rows.map((row) => row.map(field).join(",") + "\n").join("");

  // Plotly reads a few HTML tags in its texts, so names in the specifications are escaped.
  const plain = (text) => new DOMParser().parseFromString(String(text ?? ""), "text/html").body.textContent.trim();

  const chartRows = (spec) => {
    const rows = [["series", "x", "y", "x_low", "x_high", "y_low", "y_high"]];
    for (const trace of spec.data) {
      const bound = (axis, i, sign) => {
        const bar = trace[`error_${axis}`];
        if (!bar || bar.visible === false || !bar.array) return "";
        const half = sign < 0 ? (bar.arrayminus ?? bar.array)[i] : bar.array[i];
        return half === null || half === undefined ? "" : trace[axis][i] + sign * half;
      };
      trace.x.forEach((x, i) => {
        const ends = ["x", "y"].flatMap((axis) => [bound(axis, i, -1), bound(axis, i, 1)]);
        rows.push([plain(trace.name), typeof x === "string" ? plain(x) : x, plain(trace.y[i]), ...ends]);
      });
    }
    return rows;
  };

  // Without the characters that XML cannot hold, which a name may have.
  const xmlText = (text) => text.replace(/[^\t\n\r\u0020-\uD7FF\uE000-\uFFFD\u{10000}-\u{10FFFF}]/gu, "");

  const saveSvg = async (spec) => {
    const place = document.getElementById(spec.id);
    const layout = { ...themed(spec.layout), paper_bgcolor: colour("--surface"), autosize: false };
    const size = { width: place.clientWidth, height: spec.layout.height };
    const uri = await Plotly.toImage({ data: themed(spec.data), layout }, { format: "svg", ...size });
    save(`${spec.id}.svg`, "image/svg+xml", xmlText(decodeURIComponent(uri.slice(uri.indexOf(",") + 1))));
  };

  const cellText = (cell) => {
    const copy = cell.cloneNode(true);
    copy.querySelectorAll(".hidden, .arrow").forEach((node) => node.remove());
    copy.querySelectorAll("small").forEach((node) => node.prepend(" "));
    return copy.textContent.replace(/\s+/g, " ").trim();
  };
  const tableRows = (table) =>
    [...table.rows].map((row) =>
      [...row.cells].flatMap((cell) => [cellText(cell), ...Array(cell.colSpan - 1).fill("")]),
    );

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-save]");
    if (!button) return;
    const { save: format, chart, table } = button.dataset;
    const spec = specs.find((one) => one.id === chart);
    if (format === "table") save(`${table}.csv`, "text/csv", csv(tableRows(document.getElementById(table))));
    else if (format === "csv") save(`${chart}.csv`, "text/csv", csv(chartRows(spec)));
    else saveSvg(spec);
  });

  document.addEventListener(
    "click",
    (event) => {
      const head = event.target.closest("table.sortable th[data-first]");
      if (head) head.closest("table").classList.toggle("asc", head.dataset.first === "ascending");
    },
    true,
  );

  document.addEventListener("sort-end", (event) => {
    const head = event.target.querySelector("th[aria-sort]");
    const name = head.querySelector("button").firstChild.textContent.trim();
    const status = event.target.closest("section").querySelector(".sort-status");
    status.textContent = `Sorted by ${name}, ${head.getAttribute("aria-sort")}.`;
  });

  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  draw();
})();
