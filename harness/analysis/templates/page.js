// The page's parts share what stands here: making elements, the state in the address bar, links within the page.
// Everything that came from a model or a run folder reaches the page through textContent, never as markup.
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
const slug = (text) => text.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "");

// -- the address bar: `#key=value&...` holds filters, order and selection; a plain `#section` is a link as ever ----------
const read = () => new URLSearchParams(location.hash.includes("=") ? location.hash.slice(1) : "");
let state = read();
const restorers = []; // each part's function that shows what the state says
const remember = (changes) => {
  for (const [key, value] of Object.entries(changes)) value ? state.set(key, value) : state.delete(key);
  history.replaceState(null, "", `#${state}`);
};
const see = (id) => {
  const target = $(id);
  if (!target) return;
  target.scrollIntoView();
  if (!target.hasAttribute("tabindex")) target.setAttribute("tabindex", "-1");
  target.focus({ preventScroll: true });
};
document.addEventListener("click", (event) => { // a link within the page keeps what the address bar holds
  const link = event.target.closest?.('a[href^="#"]');
  if (!link) return;
  event.preventDefault();
  remember({ see: link.getAttribute("href").slice(1) });
  see(state.get("see"));
});
window.addEventListener("hashchange", () => {
  if (location.hash && !location.hash.includes("=")) return;
  state = read();
  restore();
});
const restore = () => {
  for (const part of restorers) part();
  if (state.get("see")) see(state.get("see"));
};

// Headings above the browser get a name to link to.
for (const heading of document.querySelectorAll("#leaderboard :is(h2, h3, h4), #figures h3")) {
  let id = slug(heading.textContent), twin = 1;
  while ($(id)) id = `${slug(heading.textContent)}-${++twin}`;
  heading.id = id;
  heading.append(make("a", { href: `#${id}`, class: "anchor", "aria-label": `Link to: ${heading.textContent}`, text: "#" }));
}
