// Formulas in texts, as MathML. KaTeX parses; only elements and attributes named here come into the page.
const ELEMENTS = new Set("math mrow mi mn mo ms mtext mspace mfrac msqrt mroot msub msup msubsup munder mover munderover mtable mtr mtd menclose mpadded mphantom mstyle".split(" "));
const ATTRIBUTES = new Set("mathvariant display displaystyle scriptlevel stretchy fence separator lspace rspace accent accentunder linethickness columnalign columnspacing rowspacing columnlines rowlines minsize maxsize width height depth voffset notation largeop movablelimits symmetric".split(" "));
const MATHML = "http://www.w3.org/1998/Math/MathML";
const LONGEST_FORMULA = 2000, REFUSED = "#0e1e2e";
const copied = (node) => {
  if (node.nodeType === Node.TEXT_NODE) return document.createTextNode(node.data);
  if (node.localName === "semantics") return copied(node.firstElementChild); // without the source beside it
  const element = document.createElementNS(MATHML, ELEMENTS.has(node.localName) ? node.localName : "mrow");
  for (const { name, value } of node.attributes) if (ATTRIBUTES.has(name)) element.setAttribute(name, value);
  for (const child of node.childNodes) element.append(copied(child));
  return element;
};
// The formula as an element; null for what is none.
const formula = (tex, displayMode = false) => {
  if (tex.length > LONGEST_FORMULA) return null;
  try {
    const markup = katex.renderToString(tex, { output: "mathml", displayMode, throwOnError: true, trust: false, strict: "ignore", maxExpand: 100, maxSize: 10, errorColor: REFUSED });
    if (markup.includes(REFUSED)) return null; // a command that could link or style: KaTeX shows its name alone
    const plain = markup.replace(/ style="[^"]*"/g, ""); // a style would be told of by the page's policy
    const math = new DOMParser().parseFromString(plain, "text/html").querySelector("math");
    const element = copied(math);
    element.setAttribute("alttext", tex);
    return element;
  } catch { return null; }
};
const closing = (text, from) => { // the place behind the brace that closes the one at `from`; -1 for none
  for (let i = from, depth = 0; i < text.length; i++) {
    if (text[i] === "\\") i++;
    else if (text[i] === "{") depth++;
    else if (text[i] === "}" && !--depth) return i + 1;
  }
  return -1;
};
// [text, formula or null, display] of each piece, in order; the texts together are `text`. Code between fences has none.
const pieces = (text) => {
  const found = [], starts = /```[\s\S]*?(?:```|$)|\$\$([^$]+)\$\$|\$(?!\s)([^$\n]*[^$\s\\])\$(?!\d)|\\\(([\s\S]+?)\\\)|\\\[([\s\S]+?)\\\]|\\boxed\s*\{/g;
  let done = 0;
  for (let match; (match = starts.exec(text));) {
    let end = starts.lastIndex, tex = match[1] ?? match[2] ?? match[3] ?? match[4];
    if (match[0].startsWith("```")) continue;
    if (tex === undefined) { // \boxed outside of dollars
      end = closing(text, starts.lastIndex - 1);
      if (end < 0) continue;
      tex = text.slice(match.index, end);
      starts.lastIndex = end;
    }
    if (match.index > done) found.push([text.slice(done, match.index), null, false]);
    found.push([text.slice(match.index, end), tex, match[1] !== undefined || match[4] !== undefined]);
    done = end;
  }
  if (done < text.length) found.push([text.slice(done), null, false]);
  return found;
};
const rendering = () => $("f-maths").value !== "raw";
// A short answer: a formula where it is TeX, else the text.
const answerNode = (text) => (rendering() && /\\[a-zA-Z]|[\^_]\{/.test(text) && !text.includes("\n") && formula(text)) || document.createTextNode(text);
