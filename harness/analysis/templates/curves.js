// Training curves: uPlot draws, this says what; the legend is ours, as it shows dashes and can be reached by keyboard.
if ($("curve-key")) {
  const LIGHT = ["#0072B2", "#C24E00", "#00795A", "#B0578C", "#9A6A00", "#2A88BE", "#6C4FC4", "#5F5F5F"];
  const DARK = ["#5AB4EC", "#FF9149", "#3CCFA3", "#EFA3CE", "#F2BC3F", "#9BD6F8", "#B49CFF", "#C4C4C4"];
  const DASHES = [[], [6, 3], [2, 3], [8, 3, 2, 3]];
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const names = [...new Set(data.curves.map((run) => run.name))];
  const look = (name) => {
    const i = names.indexOf(name), colors = dark.matches ? DARK : LIGHT;
    return { color: colors[i % colors.length], dash: DASHES[Math.floor(i / colors.length) % DASHES.length] };
  };
  const keys = Object.keys(data.quantities).filter((key) => data.curves.some((run) => run.series[key]));
  for (const key of keys) $("curve-key").append(make("option", { value: key, text: data.quantities[key] }));
  const off = new Set();
  let chart = null, whole = [0, 1];

  const mean = (series) => { // over seeds, then over a window of a twentieth
    const sums = new Map();
    for (const points of series) for (const [x, y] of points) sums.set(x, [...(sums.get(x) || []), y]);
    const average = (list) => list.reduce((a, b) => a + b, 0) / list.length;
    const shared = [...sums].filter(([, ys]) => ys.length === series.length).sort((a, b) => a[0] - b[0]);
    const half = Math.floor(shared.length / 40);
    return shared.map(([x], i) => [x, average(shared.slice(Math.max(0, i - half), i + half + 1).map(([, ys]) => average(ys)))]);
  };
  const round = (value) => Number(value.toPrecision(4));
  const legend = new Map(names.map((name) => {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    for (const [key, value] of Object.entries({ viewBox: "0 0 34 6", width: 34, height: 6, "aria-hidden": "true" })) svg.setAttribute(key, value);
    const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
    for (const [key, value] of Object.entries({ x1: 0, x2: 34, y1: 3, y2: 3, "stroke-width": 3 })) line.setAttribute(key, value);
    svg.append(line);
    const told = make("output"), button = make("button", { type: "button", "aria-pressed": "true" }, svg, make("span", { text: name }), told);
    button.addEventListener("click", () => {
      off.delete(name) || off.add(name);
      remember({ hide: JSON.stringify([...off]).replace(/^\[\]$/, "") });
      draw();
    });
    $("curve-legend").append(button);
    return [name, { button, line, told }];
  }));

  const draw = () => {
    const key = $("curve-key").value, style = getComputedStyle(document.body);
    const runs = data.curves.filter((run) => run.series[key]), shown = [];
    for (const [name, { button, line }] of legend) {
      const { color, dash } = look(name);
      line.setAttribute("stroke", color);
      line.setAttribute("stroke-dasharray", dash.join(" "));
      button.hidden = !runs.some((run) => run.name === name); // no such curve: nothing to hide
      button.setAttribute("aria-pressed", String(!off.has(name)));
    }
    const visible = names.filter((name) => !off.has(name) && runs.some((run) => run.name === name));
    for (const run of runs) if (visible.includes(run.name)) shown.push({ name: run.name, points: run.series[key], mean: false });
    for (const name of visible) shown.push({ name, points: mean(runs.filter((run) => run.name === name).map((run) => run.series[key])), mean: true });
    chart?.destroy();
    chart = null;
    $("curve-plot").replaceChildren();
    $("curve-plot").setAttribute("aria-label", `${data.quantities[key]} over training, ${visible.length} methods`);
    if (!shown.length) { $("curve-range").textContent = "No method is shown."; return; }
    const table = uPlot.join(shown.map(({ points }) => [points.map((p) => p[0]), points.map((p) => p[1])]));
    whole = [table[0][0], table[0][table[0].length - 1]];
    const axis = { stroke: style.getPropertyValue("--soft"), grid: { stroke: style.getPropertyValue("--line"), width: 1 }, ticks: { stroke: style.getPropertyValue("--line") }, font: "12px system-ui, sans-serif", labelFont: "12px system-ui, sans-serif" };
    chart = new uPlot({
      width: Math.max(300, $("curve-plot").clientWidth), height: 340, legend: { show: false }, cursor: { drag: { x: true, y: false } },
      scales: { x: { time: false } },
      axes: [{ ...axis, label: "update", labelSize: 18 }, { ...axis, label: data.quantities[key], labelSize: 18, size: 54, values: (_, ticks) => ticks.map(round) }],
      series: [{}, ...shown.map(({ name, points, mean: thick }) => {
        const { color, dash } = look(name);
        return { stroke: thick ? color : `${color}66`, width: thick ? 2.4 : 1, dash, spanGaps: true, points: { show: thick && points.length <= 8, size: 6, fill: color, stroke: color } };
      })],
      hooks: {
        setCursor: [(plot) => {
          for (const { told } of legend.values()) told.textContent = "";
          if (plot.cursor.left < 0) return;
          const at = plot.posToVal(plot.cursor.left, "x");
          shown.forEach(({ name, points, mean: thick }) => { // the value of the mean that lies nearest
            if (!thick || !points.length) return;
            const nearest = points.reduce((best, p) => (Math.abs(p[0] - at) < Math.abs(best[0] - at) ? p : best));
            legend.get(name).told.textContent = round(nearest[1]);
          });
        }],
        setScale: [(plot, scale) => { if (scale === "x" && chart) tellRange(plot.scales.x.min, plot.scales.x.max); }],
      },
    }, table, $("curve-plot"));
    const range = (state.get("range") || "").split("_").map(Number);
    if (range.length === 2 && range[0] < range[1]) zoom(...range);
    else tellRange(...whole);
  };
  const tellRange = (low, high) => {
    const all = low <= whole[0] && high >= whole[1];
    $("curve-range").textContent = `Updates ${round(low)} to ${round(high)}.`;
    remember({ range: all ? "" : `${round(low)}_${round(high)}` });
  };
  const zoom = (low, high) => chart?.setScale("x", { min: Math.max(whole[0], low), max: Math.min(whole[1], high) });
  const scale = (factor) => {
    if (!chart) return;
    const { min, max } = chart.scales.x, half = ((max - min) * factor) / 2, middle = (min + max) / 2;
    zoom(middle - half, middle + half);
  };
  $("zoom-in").addEventListener("click", () => scale(0.5));
  $("zoom-out").addEventListener("click", () => scale(2));
  $("zoom-all").addEventListener("click", () => zoom(...whole));
  $("curve-key").addEventListener("change", () => {
    remember({ curve: $("curve-key").value });
    draw();
  });
  window.addEventListener("resize", () => chart?.setSize({ width: Math.max(300, $("curve-plot").clientWidth), height: 340 }));
  dark.addEventListener("change", draw);
  restorers.push(() => {
    $("curve-key").value = keys.includes(state.get("curve")) ? state.get("curve") : keys.includes("acc_t2") ? "acc_t2" : keys[0];
    off.clear();
    try { for (const name of JSON.parse(state.get("hide") || "[]")) off.add(name); } catch { /* no list: nothing is hidden */ }
    draw();
  });
}
