"use strict";
// Everything that came from a model or a run folder reaches the page through textContent, never as markup.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const make = (tag, options = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [key, value] of Object.entries(options)) {
      if (key === "class") element.className = value;
      else if (key === "text") element.textContent = value;
      else element.setAttribute(key, value);
    }
    element.append(...children);
    return element;
  };

  // -- tables: sort by a column, filter by the first ------------------------------------------------------------
  const value = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.sort !== undefined ? Number(cell.dataset.sort) : cell.textContent.trim();
  };
  for (const table of document.querySelectorAll("table.board")) {
    const body = table.tBodies[0];
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const button = make("button", { type: "button", text: head.textContent });
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") === "descending";
        for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const rows = [...body.rows].sort((a, b) => {
          const x = value(a, column), y = value(b, column);
          if (typeof x !== typeof y) return typeof x === "number" ? -1 : 1; // missing numbers stay below
          const order = typeof x === "number" ? x - y : x.localeCompare(y, "en", { numeric: true });
          return up ? order : -order;
        });
        body.append(...rows);
      });
    });
  }
  $("row-filter").addEventListener("input", (event) => {
    const wanted = event.target.value.trim().toLowerCase();
    for (const row of document.querySelectorAll("table.board tbody tr")) {
      row.hidden = !row.cells[0].textContent.toLowerCase().includes(wanted);
    }
  });

  // -- training curves ------------------------------------------------------------------------------------------
  const COLORS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8a6fd1", "#888888"];
  const DASHES = ["", "6 3", "2 3", "8 3 2 3"];
  if ($("curve-key")) {
    const names = [...new Set(data.curves.map((run) => run.name))];
    const look = (name) => {
      const i = names.indexOf(name);
      return { color: COLORS[i % COLORS.length], dash: DASHES[Math.floor(i / COLORS.length) % DASHES.length] };
    };
    const off = new Set();
    const keys = [...new Set(data.curves.flatMap((run) => Object.keys(run.series)))];
    for (const key of keys) $("curve-key").append(make("option", { value: key, text: key }));
    const svg = (tag, attributes, text) => {
      const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
      for (const [key, val] of Object.entries(attributes)) element.setAttribute(key, val);
      if (text !== undefined) element.textContent = text;
      return element;
    };
    const ticks = (low, high) => { // about five round numbers
      const rough = (high - low || 1) / 5, unit = 10 ** Math.floor(Math.log10(rough));
      const step = unit * [1, 2, 5, 10].find((factor) => factor * unit >= rough);
      const first = Math.ceil(low / step - 1e-9), found = [];
      for (let i = first; i * step <= high + step * 1e-9; i++) found.push(Number((i * step).toPrecision(10)));
      return found;
    };
    const mean = (series) => { // over seeds, then over a window of a twentieth
      const sums = new Map();
      for (const points of series) for (const [x, y] of points) sums.set(x, [...(sums.get(x) || []), y]);
      const average = (list) => list.reduce((a, b) => a + b, 0) / list.length;
      const shared = [...sums].filter(([, ys]) => ys.length === series.length).sort((a, b) => a[0] - b[0]);
      const half = Math.floor(shared.length / 40);
      return shared.map(([x], i) => [x, average(shared.slice(Math.max(0, i - half), i + half + 1).map(([, ys]) => average(ys)))]);
    };
    const draw = () => {
      const key = $("curve-key").value;
      const runs = data.curves.filter((run) => run.series[key] && !off.has(run.name));
      const W = Math.max(320, Math.min(860, $("curve-plot").clientWidth)), H = 330, L = 52, R = 12, T = 12, B = 36;
      const plot = svg("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": `${key} over training` });
      const xs = runs.flatMap((run) => run.series[key].map((p) => p[0]));
      const ys = runs.flatMap((run) => run.series[key].map((p) => p[1]));
      const fold = (list, pick) => list.reduce((a, b) => pick(a, b), list[0]);
      const x0 = fold(xs, Math.min), x1 = fold(xs, Math.max), y0 = fold(ys, Math.min), y1 = fold(ys, Math.max);
      const sx = (x) => L + ((x - x0) / (x1 - x0 || 1)) * (W - L - R);
      const sy = (y) => H - B - ((y - y0) / (y1 - y0 || 1)) * (H - T - B);
      if (runs.length) {
        for (const y of ticks(y0, y1)) {
          plot.append(svg("line", { x1: L, x2: W - R, y1: sy(y), y2: sy(y), class: "axis" }));
          plot.append(svg("text", { x: L - 6, y: sy(y) + 4, "text-anchor": "end" }, y));
        }
        for (const x of ticks(x0, x1)) {
          plot.append(svg("text", { x: sx(x), y: H - B + 16, "text-anchor": sx(x) > W - R - 12 ? "end" : "middle" }, x));
        }
        plot.append(svg("text", { x: (L + W - R) / 2, y: H - 4, "text-anchor": "middle" }, "update"));
      }
      const line = (points, name, title, kind) => {
        const d = points.map((p, i) => `${i ? "L" : "M"}${sx(p[0]).toFixed(1)} ${sy(p[1]).toFixed(1)}`).join("");
        const path = svg("path", { d, stroke: look(name).color, "stroke-dasharray": look(name).dash, class: kind });
        path.append(svg("title", {}, title));
        plot.append(path);
      };
      for (const run of runs) line(run.series[key], run.name, `${run.name}, seed ${run.seed}`, "run");
      for (const name of names) {
        const mine = runs.filter((run) => run.name === name).map((run) => run.series[key]);
        if (mine.length) line(mean(mine), name, `${name}, mean of ${mine.length} ${mine.length > 1 ? "seeds" : "seed"}`, "mean");
      }
      $("curve-plot").replaceChildren(plot);
    };
    for (const name of names) {
      const swatch = make("i");
      swatch.style.background = look(name).color;
      const button = make("button", { type: "button", "aria-pressed": "true" }, swatch, name);
      button.addEventListener("click", () => {
        const shown = off.delete(name) || !off.add(name);
        button.setAttribute("aria-pressed", String(shown));
        draw();
      });
      $("curve-legend").append(button);
    }
    $("curve-key").addEventListener("change", draw);
    window.addEventListener("resize", draw);
    draw();
  }

  // -- trajectories ---------------------------------------------------------------------------------------------
  const OUTCOME = { ic: "i→c", ci: "c→i", cc: "c→c", ii: "i→i" };
  const items = data.runs.flatMap((run) =>
    run.items.map(([id, sample, attempts, prompt]) => {
      const list = attempts.map(([text, answer, correct, status, tokens, truncated, by]) => (
        { text, answer, correct, status, tokens, truncated, by }));
      const outcome = (list[0].correct ? "c" : "i") + (list[list.length - 1].correct ? "c" : "i");
      return { run, id, sample, prompt, attempts: list, outcome };
    }));
  const fill = (id, values) => {
    $(id).append(make("option", { value: "", text: "all" }));
    for (const entry of values) $(id).append(make("option", { value: entry, text: entry }));
  };
  fill("f-scope", [...new Set(data.runs.map((run) => run.scope))]);
  fill("f-method", [...new Set(data.runs.map((run) => run.name))]);
  fill("f-seed", [...new Set(data.runs.map((run) => run.seed))].sort((a, b) => a - b));
  fill("f-status", [...new Set(items.flatMap((item) => item.attempts.map((a) => a.status)))].sort());
  const PAGE = 100;
  let found = [], shown = 0, current = -1;

  const filter = () => {
    const [scope, method, seed, outcome, status] = ["scope", "method", "seed", "outcome", "status"].map((n) => $(`f-${n}`).value);
    const text = $("f-text").value.trim().toLowerCase();
    found = items.filter((item) =>
      (!scope || item.run.scope === scope) && (!method || item.run.name === method) &&
      (!seed || String(item.run.seed) === seed) && (!outcome || item.outcome === outcome) &&
      (!status || item.attempts.some((a) => a.status === status)) &&
      (!text || `${item.id}\n${item.prompt}`.toLowerCase().includes(text) || item.attempts.some((a) => a.text.toLowerCase().includes(text))));
    shown = 0; current = -1;
    $("list").replaceChildren();
    $("count").textContent = `${found.length} of ${items.length} trajectories`;
    more();
  };
  const more = () => {
    for (const item of found.slice(shown, shown + PAGE)) {
      const index = $("list").children.length;
      const button = make("button", { type: "button" },
        make("span", { class: `what ${item.outcome}`, text: OUTCOME[item.outcome] }),
        make("span", { class: "id", text: item.id + (item.sample ? ` #${item.sample}` : "") }),
        make("span", { class: "who", text: `${item.run.name} · ${item.run.seed}` }));
      button.addEventListener("click", () => open(index));
      $("list").append(make("li", {}, button));
    }
    shown = Math.min(found.length, shown + PAGE);
    $("more").hidden = shown >= found.length;
  };
  $("more").addEventListener("click", more);

  const tokenize = (text) => text.match(/\s+|[\p{L}\p{N}]+|[^\s\p{L}\p{N}]/gu) || [];
  // Marks, for each token of a and b, whether it is outside of one longest common subsequence.
  const compare = (a, b) => {
    let begin = 0, end = 0;
    while (begin < a.length && begin < b.length && a[begin] === b[begin]) begin++;
    while (end < a.length - begin && end < b.length - begin && a[a.length - 1 - end] === b[b.length - 1 - end]) end++;
    const inA = a.map((_, i) => i >= begin && i < a.length - end), inB = b.map((_, i) => i >= begin && i < b.length - end);
    const n = a.length - begin - end, m = b.length - begin - end;
    if (n * m > 4e6) return [inA, inB]; // too long for a table: the whole middle counts as changed
    const width = m + 1, table = new Uint32Array((n + 1) * width);
    for (let i = n - 1; i >= 0; i--) for (let j = m - 1; j >= 0; j--) {
      table[i * width + j] = a[begin + i] === b[begin + j] ? table[(i + 1) * width + j + 1] + 1
        : Math.max(table[(i + 1) * width + j], table[i * width + j + 1]);
    }
    for (let i = 0, j = 0; i < n && j < m;) {
      if (a[begin + i] === b[begin + j]) { inA[begin + i++] = false; inB[begin + j++] = false; }
      else if (table[(i + 1) * width + j] >= table[i * width + j + 1]) i++;
      else j++;
    }
    return [inA, inB];
  };
  const marked = (tokens, changed, tag) => {
    const pre = make("pre");
    for (let i = 0; i < tokens.length;) {
      let j = i, text = "";
      while (j < tokens.length && changed[j] === changed[i]) text += tokens[j++];
      pre.append(changed[i] ? make(tag, { text }) : document.createTextNode(text));
      i = j;
    }
    if (!tokens.length) pre.append(make("span", { class: "hint", text: "(empty)" }));
    return pre;
  };
  const fact = (name, text, kind = "") => make("div", {}, make("dt", { text: name }), make("dd", { text, class: kind }));

  const open = (index) => {
    current = index;
    const item = found[index];
    [...$("list").children].forEach((li, i) => li.firstChild.setAttribute("aria-current", String(i === index)));
    const detail = $("detail");
    detail.replaceChildren(
      make("h3", { text: `${item.id}${item.sample ? ` #${item.sample}` : ""}` }),
      make("p", { class: item.outcome, text: `${OUTCOME[item.outcome]}, ${item.run.name}, seed ${item.run.seed}` }));
    if (item.prompt) detail.append(make("pre", { class: "prompt", text: item.prompt }));
    const panes = make("div", { class: "attempts" });
    const tokens = item.attempts.map((a) => tokenize(a.text));
    item.attempts.forEach((attempt, i) => {
      let pre;
      if (item.attempts.length === 1) pre = marked(tokens[0], tokens[0].map(() => false), "ins");
      else if (i === 0) pre = marked(tokens[0], compare(tokens[0], tokens[1])[0], "del");
      else pre = marked(tokens[i], compare(tokens[i - 1], tokens[i])[1], "ins");
      panes.append(make("section", { class: "attempt", "aria-label": `Attempt ${i + 1}` },
        make("h4", { text: `Attempt ${i + 1}` }),
        make("dl", {},
          fact("verdict", attempt.correct ? "✓ right" : "✗ wrong", attempt.correct ? "right" : "wrong"),
          fact("answer", attempt.answer === null ? "none" : attempt.answer), fact("status", attempt.status),
          fact("tokens", `${attempt.tokens}${attempt.truncated ? ", cut off" : ""}`),
          ...(attempt.by !== "policy" ? [fact("by", attempt.by)] : [])),
        pre));
    });
    detail.append(panes);
  };
  const step = (by) => {
    if (!found.length) return;
    const next = Math.max(0, Math.min(found.length - 1, current + by));
    while (next >= shown && shown < found.length) more();
    open(next);
    const button = $("list").children[next].firstChild;
    button.focus({ preventScroll: true });
    button.scrollIntoView({ block: "nearest" });
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
    const inside = $("browser").contains(event.target);
    const down = event.key === "j" || (inside && event.key === "ArrowDown");
    const up = event.key === "k" || (inside && event.key === "ArrowUp");
    if (down || up) { event.preventDefault(); step(down ? 1 : -1); }
  });
  for (const control of $("filters").querySelectorAll("select, input")) control.addEventListener("input", filter);
  filter();
})();
