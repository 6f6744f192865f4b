// The page on top of the REST interface. Rule texts are untrusted: they become text nodes, never markup.

const TOKEN = "ascl-rules-token";
const POLL_MS = 15000;
const VIEWS = ["ask", "rules", "activity"];
const at = (id) => document.getElementById(id);

const state = { rulebook: null, categories: [], rules: [], byId: new Map(), usage: null };
const wide = matchMedia("(min-width: 60rem)");
let shown = "";

/** Creates an element with attributes, style variables (`--name`) and children; strings become text. */
function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("--")) element.style.setProperty(name, value);
    else if (value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

function announce(text) {
  at("announcement").textContent = text;
}

// ---------------------------------------------------------------- the service

class RequestError extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

async function api(path, body) {
  const headers = {};
  const token = sessionStorage.getItem(TOKEN);
  if (token) headers.Authorization = `Bearer ${token}`;
  const options = { headers, cache: "no-cache", credentials: "omit" };
  if (body !== undefined) {
    headers["Content-Type"] = "application/json";
    Object.assign(options, { method: "POST", body: JSON.stringify(body) });
  }
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new RequestError(0, "the service cannot be reached");
  }
  if (answer.ok) return answer.json();
  let detail = `the service answered ${answer.status}`;
  try {
    const body = (await answer.json()).detail;
    if (typeof body === "string") detail = body;
  } catch {
    // Not JSON: the message keeps the status alone.
  }
  const wait = answer.headers.get("Retry-After");
  if (answer.status === 429 && wait) detail += ` (retry in ${wait} seconds)`;
  throw new RequestError(answer.status, detail);
}

/** Shows an error in `place`, or the token form if the service requires a token. */
function fail(error, place = at("problem")) {
  if (!(error instanceof RequestError)) throw error;
  if (error.status === 401) {
    const before = sessionStorage.getItem(TOKEN);
    sessionStorage.removeItem(TOKEN);
    at("forget").hidden = true;
    if (before) showProblem("The service does not accept this token.");
    if (at("token").hidden) {
      at("token").hidden = false;
      at("token-value").focus();
    }
    return;
  }
  const prefix = error.status === 403 ? "Your token does not allow this: " : "";
  if (place === at("problem")) showProblem(`${prefix}${error.message}.`);
  else place.replaceChildren(h("p", { class: "notice bad" }, `${prefix}${error.message}.`));
}

function showProblem(text) {
  at("problem").textContent = text;
  at("problem").hidden = !text;
}

// ---------------------------------------------------------------- loading

async function load() {
  const [rulebook, categories, rules] = await Promise.all(
    ["v1/rulebook", "v1/categories", "v1/rules"].map((path) => api(path)),
  );
  Object.assign(state, { rulebook, categories, rules, byId: new Map(rules.map((rule) => [rule.id, rule])) });
  at("book").textContent = `${rulebook.name} ${rulebook.version}, ${rules.length} rules`;
  at("digest").replaceChildren(" · digest ", h("code", { title: rulebook.digest }, rulebook.digest.slice(0, 12)));
  for (const select of document.querySelectorAll("select[data-categories]")) {
    const chosen = select.value;
    select.replaceChildren(select.options[0], ...categories.map(({ id, title }) => h("option", { value: id }, title)));
    select.value = categories.some(({ id }) => id === chosen) ? chosen : "";
  }
  await showRejected();
  state.usage = await api("v1/usage").catch(() => null);
  at("use").closest("div").hidden = state.usage === null;
}

/** Shows above every view why the last edit is not served. A token without the scope for it sees nothing. */
async function showRejected() {
  const answer = await api("v1/changes").catch((error) => (error.status === 403 ? { rejected: null } : null));
  if (answer === null) return;
  const { rejected } = answer;
  const text = rejected ? `${rejected.at} ${rejected.problem}` : "";
  if (at("rejected").dataset.shown === text) return; // Screen readers announce each change.
  at("rejected").dataset.shown = text;
  at("rejected").hidden = !rejected;
  at("rejected").replaceChildren(
    ...(rejected
      ? [
          h("p", {}, h("strong", {}, "The last edit is not served"), ` (${when(rejected.at)}): ${rejected.problem}`),
          h("p", {}, "The previous rules are still served. `ascl-rules lint` lists all problems."),
        ]
      : []),
  );
}

async function start() {
  try {
    await load();
    showProblem("");
    at("token").hidden = true;
    at("forget").hidden = !sessionStorage.getItem(TOKEN);
    render();
  } catch (error) {
    fail(error);
  }
}

/** Polls the rulebook and reloads everything when its digest has changed. */
async function follow() {
  if (document.hidden || !state.rulebook) return;
  try {
    const now = await api("v1/rulebook");
    await showRejected();
    if (now.digest === state.rulebook.digest) return;
    await load();
    render();
    announce(`The rulebook has changed: ${now.name} ${now.version}.`);
  } catch (error) {
    if (error.status === 401) fail(error);
  }
}

// ---------------------------------------------------------------- pieces

const stanceOf = (stance) => h("span", { class: `stance ${["answer", "limit", "decline"].includes(stance) ? stance : ""}` }, stance);

function ruleLink(id, text = id) {
  return state.byId.has(id) ? h("a", { href: `#/rules/${encodeURIComponent(id)}` }, text) : h("span", {}, text);
}

/** Returns the three sections of a rule's text under headings; a text of another form is left unchanged. */
function ruleText(text, level = "h3") {
  const parts = /^Fine: ([^]*?)\nNot fine: ([^]*?)\nHow to answer: ([^]*)$/.exec(text);
  if (!parts) return [h("p", { class: "rule-text" }, text)];
  return ["Fine", "Not fine", "How to answer"].flatMap((heading, index) => [
    h(level, {}, heading),
    h("p", { class: "rule-text" }, parts[index + 1]),
  ]);
}

function ruleList(rules, reading) {
  const items = rules.map(({ id, title, stance }) =>
    h("li", {}, h("a", { href: `#/rules/${encodeURIComponent(id)}`, "aria-current": id === reading ? "true" : null }, h("span", {}, title), stanceOf(stance))),
  );
  return h("ul", { class: "rules" }, items);
}

const times = (count) => (count === 1 ? "once" : `${count} times`);

// ---------------------------------------------------------------- try a question

async function ask(event) {
  event.preventDefault();
  const [summary, answer] = [at("summary"), at("answer")];
  const body = { situation: at("situation").value };
  if (at("ask-category").value) body.categories = [at("ask-category").value];
  if (at("top-k").value) body.top_k = Number(at("top-k").value);
  summary.replaceChildren(h("p", { class: "quiet" }, "Asking …"));
  try {
    const probe = api("readyz").catch(() => null);
    const [response, nearest] = await Promise.all([api("v1/consult", body), api("v1/nearest", body)]);
    showProblem("");
    // Screen readers announce only the summary; the rules are below it.
    summary.replaceChildren(...outcome(response, nearest, (await probe)?.threshold?.note));
    answer.replaceChildren(...answerCards(response, nearest));
  } catch (error) {
    summary.replaceChildren();
    answer.replaceChildren();
    fail(error, summary);
  }
}

function outcome({ verdict, rules, threshold, reason }, nearest, origin) {
  if (reason === "unsupported_language") {
    return [h("h2", {}, "No rule was searched"), h("p", {}, "The rules cannot be searched in this language: ask in English, or in a language of the guide. The model answers as usual.")];
  }
  const best = nearest.rules.length ? nearest.rules[0].score.toFixed(3) : "nothing";
  const applies = verdict === "rules_found";
  const count = rules.length === 1 ? "One rule is" : `${rules.length} rules are`;
  const parts = [
    h("h2", {}, applies ? `${count} given to the model` : "No rule applies"),
    h("p", {}, applies ? `The nearest scores ${best}; the threshold is ${threshold.toFixed(3)}.` : `The nearest scores ${best}, below the threshold of ${threshold.toFixed(3)}: the model answers as usual.`),
    origin ? h("p", { class: "quiet" }, `Origin of the threshold: ${origin}.`) : null,
  ];
  return parts.filter((part) => part !== null);
}

function answerCards({ rules }, nearest) {
  const cards = rules.map((rule, index) =>
    h(
      "article",
      { class: "card" },
      h("h3", {}, ruleLink(rule.id, rule.title)),
      h("p", { class: "facts" }, stanceOf(rule.stance), h("code", {}, rule.id), `score ${rule.score.toFixed(3)}`),
      h("details", { open: wide.matches || index === 0 ? "" : null }, h("summary", {}, "What the model reads"), ...ruleText(rule.text, "h4")),
    ),
  );
  return [h("div", { class: rules.length ? "found" : null }, rules.length ? h("div", {}, cards) : null, scores(nearest, rules))];
}

/** Returns a table of the nearest rules, including given rules that are not among the nearest. */
function scores(nearest, given) {
  const { threshold } = nearest;
  const byId = new Map([...nearest.rules, ...given].map((rule) => [rule.id, rule]));
  const rules = [...byId.values()].sort((a, b) => b.score - a.score);
  const givenIds = new Set(given.map((rule) => rule.id));
  const values = [...rules.map((rule) => rule.score), threshold];
  const [low, high] = [Math.min(0, ...values), Math.max(0, ...values)];
  const place = (value) => `${(2 + (95 * (value - low)) / (high - low || 1)).toFixed(1)}%`;
  const status = (rule) => (givenIds.has(rule.id) ? "given" : rule.score < threshold ? "below" : "left out");
  const rows = rules.map((rule) =>
    h(
      "tr",
      { class: givenIds.has(rule.id) ? "given" : null },
      h("th", { scope: "row" }, ruleLink(rule.id, rule.title), h("span", { class: "bar score", "aria-hidden": "true", "--long": place(rule.score), "--threshold": place(threshold) })),
      h("td", {}, status(rule)),
      h("td", { class: "number" }, rule.score.toFixed(3)),
    ),
  );
  const heads = ["Rule", "Outcome", "Score"].map((text) => h("th", { scope: "col" }, text));
  return h(
    "div",
    { class: "card scores" },
    h("h3", {}, "The nearest rules"),
    h("table", {}, h("caption", {}, `The dashed line is the threshold, ${threshold.toFixed(3)}. Each category gets its first rule before any category gets a second. The nearest rule with the stance answer comes with everything from its category, whatever its score.`), h("thead", {}, h("tr", {}, heads)), h("tbody", {}, rows)),
  );
}

// ---------------------------------------------------------------- rules

function matches(rule, words, category, stance, use) {
  const text = `${rule.id} ${rule.title} ${rule.applies_when} ${rule.not_when ?? ""} ${rule.text}`.toLowerCase();
  const used = state.usage ? (state.usage.rules[rule.id] ?? 0) > 0 : false;
  return (
    words.every((word) => text.includes(word)) &&
    (!category || rule.category === category) &&
    (!stance || rule.stance === stance) &&
    (!use || used === (use === "used"))
  );
}

function list(reading) {
  const words = at("words").value.toLowerCase().split(/\s+/).filter(Boolean);
  const use = state.usage ? at("use").value : "";
  const matching = state.rules.filter((rule) => matches(rule, words, at("filter-category").value, at("stance").value, use));
  at("count").textContent = `${matching.length} of ${state.rules.length} rules`;
  const groups = state.categories
    .map(({ id, title }) => [title, matching.filter((rule) => rule.category === id)])
    .filter(([, rules]) => rules.length);
  at("list").replaceChildren(
    ...groups.flatMap(([title, rules]) => [h("h2", { class: "group" }, title), ruleList(rules, reading)]),
    ...(matching.length ? [] : [h("p", {}, "No rule matches: try fewer words, or another category.")]),
  );
}

function readRule(id) {
  const rule = state.byId.get(id);
  const back = h("p", { class: "back" }, h("a", { href: "#/rules" }, "All rules"));
  if (!rule) {
    const text = id ? `The rulebook has no rule ${id}.` : "Choose a rule to see the text that a model reads.";
    at("rule").replaceChildren(...(id ? [back] : []), h("p", { class: "quiet" }, text));
    return;
  }
  const count = state.usage?.rules[id] ?? 0;
  at("rule").replaceChildren(
    back,
    h("h2", { tabindex: "-1" }, rule.title),
    h("p", { class: "facts" }, stanceOf(rule.stance), h("code", {}, rule.id), state.usage ? (count ? `given ${times(count)}` : "never given") : null),
    h("h3", {}, "When it applies"),
    h("p", { class: "rule-text" }, rule.applies_when),
    ...(rule.not_when ? [h("h3", {}, "When it does not"), h("p", { class: "rule-text" }, rule.not_when)] : []),
    ...ruleText(rule.text),
  );
}

// ---------------------------------------------------------------- changes and use

async function activity() {
  await Promise.all([
    showRejected(),
    api("v1/changes").then(changes, (error) => fail(error, at("changes"))),
    api("v1/usage").then(usage, (error) => fail(error, at("usage"))),
  ]);
}

const when = (time) => {
  const date = new Date(typeof time === "number" ? time * 1000 : time);
  return Number.isNaN(date.valueOf()) ? String(time) : date.toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "medium" });
};

function changes({ digest, previous, at: time, added, removed, reworded }) {
  const parts = [["Added", added], ["Removed", removed], ["Reworded", reworded]].filter(([, ids]) => ids.length);
  at("changes").replaceChildren(
    previous
      ? h("p", {}, `Served since ${when(time)}: `, h("code", {}, digest.slice(0, 12)), ", previously ", h("code", {}, previous.slice(0, 12)), ".")
      : h("p", {}, "No rule has changed since the service started. It serves ", h("code", {}, digest.slice(0, 12)), time ? `, since ${when(time)}.` : "."),
    ...parts.flatMap(([name, ids]) => [h("h3", {}, `${name} (${ids.length})`), h("ul", {}, ids.map((id) => h("li", {}, ruleLink(id))))]),
  );
}

function usage(report) {
  state.usage = report;
  const counted = Object.entries(report.rules).filter(([, count]) => count > 0).sort((a, b) => b[1] - a[1] || a[0].localeCompare(b[0]));
  const most = counted.length ? counted[0][1] : 1;
  const never = state.rules.filter((rule) => !report.rules[rule.id]);
  at("usage").replaceChildren(
    h("p", {}, `${report.consultations === 1 ? "One consultation" : `${report.consultations} consultations`} since ${when(report.since)}; ${report.no_applicable_rule} matched no rule.`),
    counted.length
      ? h("table", { class: "card" }, h("caption", { class: "unseen" }, "Rules by how often they were given"),
          h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Rule"), h("th", { scope: "col" }, "Times"))),
          h("tbody", {}, counted.map(([id, count]) =>
            h("tr", {}, h("th", { scope: "row" }, ruleLink(id, state.byId.get(id)?.title), h("span", { class: "bar count", "aria-hidden": "true", "--long": `${(100 * count) / most}%` })), h("td", { class: "number" }, String(count))))))
      : h("p", {}, "No rule has been given yet."),
    h("details", {}, h("summary", {}, `Never given: ${never.length} of ${state.rules.length} rules`), never.length ? ruleList(never) : null),
  );
}

// ---------------------------------------------------------------- views

function route() {
  const [, view = "", id = ""] = location.hash.split("/");
  try {
    return { view: VIEWS.includes(view) ? view : "ask", id: decodeURIComponent(id) };
  } catch {
    return { view: "ask", id: "" };
  }
}

function render() {
  const { view, id } = route();
  for (const section of document.querySelectorAll("[data-view]")) section.hidden = section.dataset.view !== view;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#/${view}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.querySelector(".split").classList.toggle("reading", Boolean(id));
  if (view === "rules") {
    list(id);
    readRule(id);
  }
  if (view === "activity") activity();
  const title = view === "rules" && state.byId.get(id)?.title;
  document.title = `${title || document.querySelector(`#${view}-title`).textContent} · Safety rules`;
}

function navigate() {
  if (location.hash && !location.hash.startsWith("#/")) return;
  const { view, id } = route();
  render();
  const target = view === "rules" && id ? at("rule").querySelector("h2") ?? at("rule") : at(`${view}-title`);
  if (shown !== location.hash) target.focus({ preventScroll: view === "rules" && wide.matches });
  if (view !== "rules" || !id) scrollTo(0, 0);
  shown = location.hash;
}

for (let count = 1; count <= 10; count += 1) at("top-k").append(h("option", { value: count }, String(count)));
at("ask").addEventListener("submit", ask);
at("situation").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) at("ask").requestSubmit();
});
at("filter").addEventListener("submit", (event) => event.preventDefault());
at("filter").addEventListener("input", () => list(route().id));
at("token").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(TOKEN, at("token-value").value.trim());
  at("token-value").value = "";
  start();
});
at("forget").addEventListener("click", () => {
  sessionStorage.removeItem(TOKEN);
  location.reload();
});
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  at("main").focus();
});
addEventListener("hashchange", navigate);
setInterval(follow, POLL_MS);
shown = location.hash;
render();
start();
