"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const root = document.documentElement;

  // -- theme
  const theme = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  let kept = null;
  try { kept = localStorage.getItem("startmethods-theme"); } catch { /* a file may have no storage */ }
  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const label = () => { theme.textContent = `Switch to ${dark() ? "light" : "dark"}`; };
  if (kept === "dark" || kept === "light") root.dataset.theme = kept;
  theme.hidden = false;
  label();
  system.addEventListener("change", label);
  theme.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    try { localStorage.setItem("startmethods-theme", root.dataset.theme); } catch { /* as above */ }
    label();
  });

  // -- node ids to copy
  for (const button of all(".copy")) button.hidden = false;
  document.addEventListener("click", async (event) => {
    const button = event.target.closest(".copy");
    if (!button) return;
    try {
      await navigator.clipboard.writeText(button.dataset.copy);
      button.firstChild.data = "Copied";
    } catch {
      getSelection().selectAllChildren(button.previousElementSibling);
      button.firstChild.data = "Selected";
    }
    setTimeout(() => { button.firstChild.data = "Copy"; }, 1500);
  });

  // -- on paper everything is open
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = all("details:not([open])");
    for (const each of opened) each.open = true;
  });
  addEventListener("afterprint", () => { for (const each of opened) each.open = false; });

  // -- filters
  const form = document.getElementById("filters");
  if (!form) return;
  document.getElementById("controls").hidden = false;
  const text = document.getElementById("text");
  const only = document.getElementById("only");
  const order = document.getElementById("order");
  const shown = document.getElementById("shown");
  const none = document.getElementById("none");
  const chips = all(".chip");
  for (const chip of chips) chip.hidden = chip.disabled = false;
  const count = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;
  const bodies = all(".matrix tbody");
  const rows = all("tr.test").map((row, index) => ({
    row,
    index,
    more: row.nextElementSibling,
    body: row.parentElement,
    number: row.dataset.number,
    verdict: row.dataset.verdict,
    codes: row.dataset.codes.split(" "),
    seconds: Number(row.dataset.seconds),
  }));
  const groups = all("[data-of]").map((node) => ({ node, of: node.dataset.of ? node.dataset.of.split(" ") : [] }));
  const words = new Map();
  for (const { node, of } of groups.filter(({ node }) => node.matches(".cause"))) {
    const told = node.querySelector("summary").textContent + node.querySelector(".message").textContent;
    for (const number of of) words.set(number, (words.get(number) || "") + told);
  }
  for (const each of rows) {
    const file = each.body.querySelector(".file").textContent;
    each.text = `${file}::${each.row.textContent} ${each.more.textContent} ${words.get(each.number) || ""}`.toLowerCase();
  }
  const pressed = (kind) => chips.filter((chip) => kind in chip.dataset && chip.getAttribute("aria-pressed") === "true")
    .map((chip) => chip.dataset[kind]);

  const show = (node, yes) => { node.hidden = !yes; };
  const apply = () => {
    const verdicts = pressed("verdict");
    const codes = pressed("code");
    const wanted = text.value.toLowerCase().split(/\s+/).filter(Boolean);
    const fits = (each) => wanted.every((word) => each.text.includes(word))
      && (!codes.length || codes.some((code) => each.codes.includes(code)));
    const chosen = ({ verdict }) => (verdicts.length ? verdicts.includes(verdict) : !only.checked || verdict !== "passes");
    const left = new Set();
    for (const each of rows) {
      const yes = fits(each) && chosen(each);
      show(each.row, yes);
      show(each.more, yes);
      if (yes) left.add(each.number);
    }
    for (const { node, of } of groups) {
      const mine = of.filter((number) => left.has(number)).length;
      const section = node.closest(".bycode");
      show(node, mine > 0 && (!codes.length || codes.includes(section.dataset.code)));
      const told = node.querySelector(node.matches(".cause") ? "summary .count" : ".codehead .number");
      told.textContent = mine === of.length ? count(mine, "test") : `${mine} of ${count(of.length, "test")}`;
    }
    for (const chip of chips.filter((each) => "verdict" in each.dataset)) {
      chip.querySelector(".number").textContent = rows.filter((each) => each.verdict === chip.dataset.verdict && fits(each)).length;
    }
    for (const body of bodies) show(body, Boolean(body.querySelector("tr.test:not([hidden])")));
    for (const section of all(".found")) show(section, Boolean(section.querySelector(".bycode:not([hidden])")));
    show(none, left.size === 0);
    shown.textContent = left.size === rows.length ? count(left.size, "test") : `${left.size} of ${count(rows.length, "test")}`;
    remember(verdicts, codes);
  };

  // -- the filter is in the address, so that it can be sent
  const remember = (verdicts, codes) => {
    const state = new URLSearchParams();
    if (text.value) state.set("q", text.value);
    for (const verdict of verdicts) state.append("verdict", verdict);
    for (const code of codes) state.append("code", code);
    if (only.checked !== only.defaultChecked) state.set("only", only.checked ? "1" : "0");
    if (order.value) state.set("order", order.value);
    const hash = state.toString() ? `#?${state}` : "";
    if (hash || location.hash.startsWith("#?")) {
      try { history.replaceState(null, "", hash || location.pathname + location.search); } catch { /* a sandbox */ }
    }
  };
  const recall = () => {
    if (!location.hash.startsWith("#?")) return;
    const state = new URLSearchParams(location.hash.slice(2));
    text.value = state.get("q") || "";
    if (state.has("only")) only.checked = state.get("only") === "1";
    order.value = state.get("order") || "";
    for (const chip of chips) {
      const kind = "verdict" in chip.dataset ? "verdict" : "code";
      chip.setAttribute("aria-pressed", String(state.getAll(kind).includes(chip.dataset[kind])));
    }
    sort();
    apply();
  };

  const slowest = new Map(bodies.map((body) => [body, 0]));
  for (const { body, seconds } of rows) slowest.set(body, Math.max(slowest.get(body), seconds));
  const sort = () => {
    const by = order.value ? (a, b) => b.seconds - a.seconds : (a, b) => a.index - b.index;
    for (const { row, more, body } of [...rows].sort(by)) body.append(row, more);
    const places = order.value ? [...bodies].sort((a, b) => slowest.get(b) - slowest.get(a)) : bodies;
    for (const body of places) body.parentElement.append(body);
  };

  // -- a link to a cause opens it
  const open = () => {
    if (location.hash.startsWith("#?")) return recall();
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    const cause = target && target.closest("details.cause");
    if (!cause) return;
    if (cause.hidden) reset();
    cause.open = true;
    target.scrollIntoView({ block: "start" });
  };
  addEventListener("hashchange", open);
  document.addEventListener("click", (event) => {
    const link = event.target.closest('a[href^="#cause-"]');
    if (link && link.hash === location.hash) open();
  });

  for (const chip of chips) {
    chip.addEventListener("click", () => {
      chip.setAttribute("aria-pressed", String(chip.getAttribute("aria-pressed") !== "true"));
      apply();
    });
  }
  const reset = () => {
    for (const chip of chips) chip.setAttribute("aria-pressed", "false");
    text.value = "";
    only.checked = only.defaultChecked;
    order.value = "";
    sort();
    apply();
  };
  text.addEventListener("input", apply);
  only.addEventListener("change", apply);
  order.addEventListener("change", () => { sort(); apply(); });
  form.addEventListener("reset", (event) => { event.preventDefault(); reset(); });
  form.addEventListener("submit", (event) => event.preventDefault());
  none.querySelector("button").addEventListener("click", reset);
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && document.activeElement !== text && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      text.focus();
    }
  });
  if (!location.hash.startsWith("#?")) apply(); // a browser may have kept the text
  open();
})();
