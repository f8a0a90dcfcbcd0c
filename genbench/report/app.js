(() => {
  "use strict";

  const root = document.documentElement;
  const specs = JSON.parse(document.getElementById("chart-data").textContent);

  const themed = (value, key = "") => {
    if (Array.isArray(value)) return value.map((item) => themed(item, key));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, themed(item, name)]));
    }
    if (typeof value === "string" && key.endsWith("color") && value.startsWith("--")) {
      return getComputedStyle(root).getPropertyValue(value).trim();
    }
    return value;
  };

  const draw = () => {
    for (const spec of specs) {
      const place = document.getElementById(spec.id);
      Plotly.react(place, themed(spec.data), themed(spec.layout), { responsive: true, displayModeBar: false });
    }
  };

  document.addEventListener(
    "click",
    (event) => {
      const head = event.target.closest("#comparison-table th[data-first]");
      if (head) head.closest("table").classList.toggle("asc", head.dataset.first === "ascending");
    },
    true,
  );

  document.addEventListener("sort-end", (event) => {
    const head = event.target.querySelector("th[aria-sort]");
    const name = head.querySelector("button").firstChild.textContent.trim();
    document.getElementById("sort-status").textContent = `Sorted by ${name}, ${head.getAttribute("aria-sort")}.`;
  });

  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  draw();
})();
