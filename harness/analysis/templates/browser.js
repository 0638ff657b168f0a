// Trajectories: one by one, or one problem over all rows and seeds side by side.
const OUTCOME = { ic: "i→c", ci: "c→i", cc: "c→c", ii: "i→i" };
const asked = data.scopes.map((scope) => new Map(Object.entries(scope.problems))); // of each evaluation: id -> [prompt, gold]
const items = data.runs.flatMap((run) =>
  run.items.map(([id, sample, attempts]) => {
    const list = attempts.map(([text, answer, correct, status, tokens, truncated, by, reason]) => (
      { text, answer, correct, status, tokens, truncated, by, reason }));
    const outcome = (list[0].correct ? "c" : "i") + (list[list.length - 1].correct ? "c" : "i");
    const [prompt, gold] = asked[run.scope].get(id) || ["", ""];
    return { run, id, sample, prompt, gold, scope: data.scopes[run.scope].name, attempts: list, outcome };
  }));
const fill = (id, values) => {
  $(id).append(make("option", { value: "", text: "all" }));
  for (const entry of values) $(id).append(make("option", { value: entry, text: entry }));
};
fill("f-scope", [...new Set(items.map((item) => item.scope))]);
fill("f-method", [...new Set(data.runs.map((run) => run.name))]);
fill("f-seed", [...new Set(data.runs.map((run) => run.seed))].sort((a, b) => a - b));
fill("f-status", [...new Set(items.flatMap((item) => item.attempts.map((a) => a.status)))].sort());
const FILTERS = ["view", "scope", "method", "seed", "outcome", "status", "text", "maths"];
const PAGE = 100;
let found = [], shown = 0, current = -1; // entries of the list: a trajectory, or a problem with its trajectories

const label = ({ id, sample }) => id + (sample ? ` #${sample}` : "");
const sideBySide = () => $("f-view").value === "problems";
const nameOf = (entry) => JSON.stringify(sideBySide() ? [entry.scope, entry.id, entry.sample]
  : [entry.scope, entry.id, entry.sample, entry.run.name, entry.run.seed]);

const filter = () => {
  const [scope, method, seed, outcome, status] = ["scope", "method", "seed", "outcome", "status"].map((n) => $(`f-${n}`).value);
  const text = $("f-text").value.trim().toLowerCase();
  const ofRun = (item) => (!scope || item.scope === scope) && (!method || item.run.name === method) && (!seed || String(item.run.seed) === seed);
  const fits = (item) => (!outcome || item.outcome === outcome) && (!status || item.attempts.some((a) => a.status === status)) &&
    (!text || `${item.id}\n${item.prompt}\n${item.gold}`.toLowerCase().includes(text) || item.attempts.some((a) => a.text.toLowerCase().includes(text)));
  if (sideBySide()) { // a problem is found when one of its trajectories fits; all of the chosen rows are then shown
    const problems = new Map();
    for (const item of items.filter(ofRun)) {
      const key = JSON.stringify([item.scope, item.id, item.sample]);
      if (!problems.has(key)) problems.set(key, { ...item, run: null, all: [], fits: false });
      const problem = problems.get(key);
      problem.all.push(item);
      problem.fits ||= fits(item);
    }
    found = [...problems.values()].filter((problem) => problem.fits);
    $("count").textContent = `${found.length} of ${problems.size} problems`;
  } else {
    found = items.filter((item) => ofRun(item) && fits(item));
    $("count").textContent = `${found.length} of ${items.length} trajectories`;
  }
  if (!found.length) $("count").textContent += ". Nothing matches: clear a filter.";
  shown = 0; current = -1;
  $("list").replaceChildren();
  $("list").setAttribute("aria-label", sideBySide() ? "Problems" : "Trajectories");
  more();
};
const right = (list, last) => list.filter((item) => item.attempts[last ? item.attempts.length - 1 : 0].correct).length;
const more = () => {
  for (const entry of found.slice(shown, shown + PAGE)) {
    const index = $("list").children.length;
    const told = entry.all
      ? [make("span", { class: "id", text: label(entry) }), make("span", { class: "who", text: `${right(entry.all, false)} → ${right(entry.all, true)} of ${entry.all.length} right` })]
      : [make("span", { class: `what ${entry.outcome}`, text: OUTCOME[entry.outcome] }), make("span", { class: "id", text: label(entry) }),
        make("span", { class: "who", text: `${entry.run.name} · ${entry.run.seed}` })];
    const button = make("button", { type: "button" }, ...told);
    button.addEventListener("click", () => open(index));
    $("list").append(make("li", {}, button));
  }
  shown = Math.min(found.length, shown + PAGE);
  $("more").hidden = shown >= found.length;
};
$("more").addEventListener("click", more);

// -- texts with what changed marked; a formula is one token ---------------------------------------------------------
const tokenize = (text) => {
  const tokens = [];
  for (const [piece, tex, display] of rendering() ? pieces(text) : [[text, null, false]]) {
    if (tex !== null) tokens.push({ text: piece, tex, display });
    else for (const word of piece.match(/\s+|[\p{L}\p{N}]+|[^\s\p{L}\p{N}]/gu) || []) tokens.push({ text: word });
  }
  return tokens;
};
// Marks, for each token of a and b, whether it is outside of one longest common subsequence.
const compare = (a, b) => {
  const same = (i, j) => a[i].text === b[j].text;
  let begin = 0, end = 0;
  while (begin < a.length && begin < b.length && same(begin, begin)) begin++;
  while (end < a.length - begin && end < b.length - begin && same(a.length - 1 - end, b.length - 1 - end)) end++;
  const inA = a.map((_, i) => i >= begin && i < a.length - end), inB = b.map((_, i) => i >= begin && i < b.length - end);
  const n = a.length - begin - end, m = b.length - begin - end;
  if (n * m > 4e6) return [inA, inB]; // too long for a table: the whole middle counts as changed
  const width = m + 1, table = new Uint32Array((n + 1) * width);
  for (let i = n - 1; i >= 0; i--) for (let j = m - 1; j >= 0; j--) {
    table[i * width + j] = same(begin + i, begin + j) ? table[(i + 1) * width + j + 1] + 1
      : Math.max(table[(i + 1) * width + j], table[i * width + j + 1]);
  }
  for (let i = 0, j = 0; i < n && j < m;) {
    if (same(begin + i, begin + j)) { inA[begin + i++] = false; inB[begin + j++] = false; }
    else if (table[(i + 1) * width + j] >= table[i * width + j + 1]) i++;
    else j++;
  }
  return [inA, inB];
};
const written = (tokens, changed, tag, options = {}) => {
  const pre = make("pre", options);
  for (let i = 0; i < tokens.length;) {
    const run = changed[i] ? make(tag) : document.createDocumentFragment(), flag = changed[i];
    let text = "";
    for (; i < tokens.length && changed[i] === flag; i++) {
      const math = tokens[i].tex !== undefined && formula(tokens[i].tex, tokens[i].display);
      if (math) { run.append(text, math); text = ""; }
      else text += tokens[i].text;
    }
    run.append(text);
    pre.append(run);
  }
  if (!tokens.length) pre.append(make("span", { class: "hint", text: "(empty)" }));
  return pre;
};
const plainly = (text, options) => { const tokens = tokenize(text); return written(tokens, tokens.map(() => false), "ins", options); };
const fact = (name, content, kind = "") => make("div", {}, make("dt", { text: name }), make("dd", { class: kind }, content));

const attemptPanes = (item, level) => {
  const tokens = item.attempts.map((a) => tokenize(a.text));
  return item.attempts.map((attempt, i) => {
    let pre;
    if (item.attempts.length === 1) pre = written(tokens[0], tokens[0].map(() => false), "ins");
    else if (i === 0) pre = written(tokens[0], compare(tokens[0], tokens[1])[0], "del");
    else pre = written(tokens[i], compare(tokens[i - 1], tokens[i])[1], "ins");
    return make("div", { class: "attempt", role: "group", "aria-label": `Attempt ${i + 1}` },
      make(level, { text: `Attempt ${i + 1}` }),
      make("dl", {},
        fact("verdict", attempt.correct ? "✓ right" : "✗ wrong", attempt.correct ? "right" : "wrong"),
        ...(attempt.reason ? [fact("reason", attempt.reason, "reason")] : []),
        fact("answer", attempt.answer === null ? "none" : answerNode(attempt.answer)),
        ...(attempt.status !== "ok" ? [fact("status", attempt.status)] : []),
        fact("tokens", `${attempt.tokens}${attempt.truncated ? ", cut off" : ""}`),
        ...(attempt.by !== "policy" ? [fact("by", attempt.by)] : [])),
      pre);
  });
};
const statement = (entry) => [
  ...(entry.prompt ? [plainly(entry.prompt, { class: "prompt" })] : []),
  ...(entry.gold ? [make("dl", { class: "gold" }, fact("gold answer", entry.gold.includes("\n") || entry.gold.length > 80
    ? make("pre", { text: entry.gold }) : answerNode(entry.gold)))] : []),
];

const open = (index) => {
  current = index;
  const entry = found[index];
  [...$("list").children].forEach((li, i) => li.firstChild.setAttribute("aria-current", String(i === index)));
  remember({ open: nameOf(entry), see: "" });
  $("detail").replaceChildren(make("h3", { text: label(entry) }), ...(entry.all ? overview(entry) : single(entry)));
  for (const pre of $("detail").querySelectorAll("pre")) { // a wide formula is reached by keyboard as well
    if (pre.scrollWidth > pre.clientWidth || pre.scrollHeight > pre.clientHeight) pre.setAttribute("tabindex", "0");
  }
};
const single = (item) => {
  const all = make("button", { type: "button", id: "all-rows", text: "All rows and seeds on this problem" });
  all.addEventListener("click", () => {
    remember({ view: "problems", method: "", seed: "", outcome: "", status: "", text: "", open: JSON.stringify([item.scope, item.id, item.sample]) });
    showState();
    $("detail").focus();
  });
  return [make("p", { class: item.outcome, text: `${OUTCOME[item.outcome]}, ${item.run.name}, seed ${item.run.seed}` }), all,
    ...statement(item), make("div", { class: "attempts" }, ...attemptPanes(item, "h4"))];
};
const overview = (problem) => { // a small table of answers, then every trajectory in full
  const seeds = [...new Set(problem.all.map((item) => item.run.seed))].sort((a, b) => a - b);
  const rows = Map.groupBy ? Map.groupBy(problem.all, (item) => item.run.name)
    : problem.all.reduce((map, item) => map.set(item.run.name, [...(map.get(item.run.name) || []), item]), new Map());
  const table = make("table", { class: "answers" },
    make("caption", { text: "Answers of the first and the last attempt; open one to read it below." }),
    make("thead", {}, make("tr", {}, make("th", { scope: "col", text: "Method" }), ...seeds.map((seed) => make("th", { scope: "col", text: `seed ${seed}` })))),
    make("tbody"));
  const cards = [];
  for (const [name, mine] of rows) {
    const line = make("tr", {}, make("th", { scope: "row", text: name }));
    const group = make("div", { class: "cards" });
    for (const seed of seeds) {
      const item = mine.find((candidate) => candidate.run.seed === seed), cell = make("td");
      if (item) {
        const ends = [...new Set([0, item.attempts.length - 1])].map((i) => item.attempts[i]);
        const card = make("div", { class: "card", role: "group", tabindex: "-1", "aria-label": `${name}, seed ${seed}` },
          make("h5", { class: item.outcome, text: `${OUTCOME[item.outcome]}, seed ${seed}` }), ...attemptPanes(item, "h6"));
        const jump = make("button", { type: "button", class: item.outcome, "aria-label": `${name}, seed ${seed}: ${OUTCOME[item.outcome]}` },
          ...ends.flatMap((attempt, i) => [...(i ? [" → "] : []), make("span", { class: attempt.correct ? "right" : "wrong" },
            attempt.correct ? "✓ " : "✗ ", attempt.answer === null ? "none" : shorten(attempt.answer))]));
        jump.addEventListener("click", () => { card.scrollIntoView({ block: "center" }); card.focus({ preventScroll: true }); });
        cell.append(jump);
        group.append(card);
      } else cell.textContent = "–";
      line.append(cell);
    }
    table.tBodies[0].append(line);
    cards.push(make("h4", { text: name }), group);
  }
  const told = `${right(problem.all, false)} of ${problem.all.length} are right at the first attempt, ${right(problem.all, true)} at the last.`;
  return [make("p", { class: "hint", text: told }), ...statement(problem),
    make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Answers of all rows" }, table), ...cards];
};
const shorten = (text) => answerNode(text).nodeType === Node.TEXT_NODE && text.length > 24 ? `${text.slice(0, 23).replace(/\s+/g, " ")}…` : answerNode(text);

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
  if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) || $("large")?.open) return;
  const inside = $("list").contains(event.target);
  const down = event.key === "j" || (inside && event.key === "ArrowDown");
  const up = event.key === "k" || (inside && event.key === "ArrowUp");
  if (down || up) { event.preventDefault(); step(down ? 1 : -1); }
});
for (const name of FILTERS) {
  $(`f-${name}`).addEventListener("input", () => {
    const kept = current >= 0 && name === "maths" ? state.get("open") : "";
    remember({ [name]: $(`f-${name}`).value.trim(), open: kept });
    filter();
    if (kept) reopen();
    else $("detail").replaceChildren(make("p", { class: "hint", text: "Choose an entry of the list." }));
  });
}
const reopen = () => {
  const wanted = state.get("open"), index = wanted ? found.findIndex((entry) => nameOf(entry) === wanted) : -1;
  if (index >= 0) {
    while (index >= shown) more();
    open(index);
    return true;
  }
  if (wanted) $("detail").replaceChildren(make("p", { class: "hint", text: "What the address names is not among the entries of this page." }));
  return false;
};
const showState = () => {
  for (const name of FILTERS) {
    $(`f-${name}`).value = state.get(name) || "";
    if ($(`f-${name}`).selectedIndex === -1) $(`f-${name}`).value = ""; // a value that this page does not have
  }
  filter();
  return reopen();
};
restorers.push(() => {
  const target = state.get("see");
  if (showState() && !target) $("browser").scrollIntoView();
});
restore();
