// The search page: asks the service that it came from, shows what it answers, and tells it what was clicked and graded.
// Everything from outside becomes text, never markup.

const plugin = decodeURIComponent(location.pathname.split("/").pop());
const $ = (id) => document.getElementById(id);
const SIZE = 10;
const GRADES = ["not at all", "a little", "well", "exactly"];

const state = { view: "search", query: "", page: 0, sort: "", mode: "hybrid", chosen: {}, ranges: {} };
let fields = [];
let queryId = null;
let asked = 0;
let grades = {};

// ---- small parts ---------------------------------------------------------------------------------------------------

function make(tag, properties = {}, ...children) {
  const { data = {}, aria = {}, ...rest } = properties;
  const element = Object.assign(document.createElement(tag), rest);
  Object.assign(element.dataset, data);
  for (const [name, value] of Object.entries(aria)) element.setAttribute(`aria-${name}`, value);
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

function stored(storage, name, fresh) {
  let value = null;
  try {
    value = storage.getItem(name);
    if (!value) storage.setItem(name, (value = fresh()));
  } catch { value = value || fresh(); } // a browser that keeps nothing
  return value;
}

const randomId = () => Array.from(crypto.getRandomValues(new Uint8Array(12)), (n) => n.toString(16).padStart(2, "0")).join("");
const clientId = stored(localStorage, "estudio.client", randomId);
const sessionId = stored(sessionStorage, "estudio.session", randomId);
const label = (name) => name.replaceAll("_", " ");
const number = new Intl.NumberFormat(undefined, { maximumFractionDigits: 3 });
const shown = (value) => Array.isArray(value) ? value.map(shown).join(", ")
  : typeof value === "number" ? number.format(value) : typeof value === "object" ? JSON.stringify(value) : String(value);

// ---- the service ---------------------------------------------------------------------------------------------------

function readKey() {
  const given = new URLSearchParams(location.hash.slice(1)).get("key");
  if (given) { // a link may bring a key; it does not stay in the address
    sessionStorage.setItem("estudio.key", given);
    history.replaceState(null, "", location.pathname + location.search);
  }
  return sessionStorage.getItem("estudio.key");
}

class Problem extends Error {
  constructor(status, reason) { super(reason); this.status = status; }
}

async function ask(method, path, body, more = {}) {
  const key = readKey();
  const headers = { ...(body !== undefined && { "Content-Type": "application/json" }), ...(key && { Authorization: `Bearer ${key}` }) };
  const content = body === undefined ? undefined : typeof body === "string" ? body : JSON.stringify(body);
  const answer = await fetch(path, { method, headers, body: content, credentials: "omit", ...more });
  const text = await answer.text();
  let told = text;
  try { told = JSON.parse(text); } catch { /* a table is no JSON */ }
  if (!answer.ok) throw new Problem(answer.status, told.error?.reason ?? told.message ?? `The service answered ${answer.status}.`);
  return told;
}

function complain(error) {
  if (error instanceof Problem && (error.status === 401 || error.status === 403)) {
    $("key-why").textContent = error.message;
    $("key-form").hidden = false;
    $("key").focus();
    return;
  }
  $("problem").textContent = error.message;
  $("problem").hidden = false;
}

async function tried(work) {
  $("problem").hidden = true;
  document.body.setAttribute("aria-busy", "true");
  try { return await work(); } catch (error) { complain(error); } finally { document.body.removeAttribute("aria-busy"); }
  return undefined;
}

// What was done is told while the page may be closing: the request outlives it.
function tell(action, hit, place) {
  const event = {
    action_name: action, query_id: queryId, application: plugin, client_id: clientId, session_id: sessionId,
    timestamp: new Date().toISOString(), user_query: state.query || undefined,
    event_attributes: { object: { object_id: hit._id, object_id_field: "_id" }, position: { ordinal: place } },
  };
  if (queryId && readKey()) ask("POST", "/ubi_events", event, { keepalive: true }).catch(() => {});
}

// ---- asking --------------------------------------------------------------------------------------------------------

const facetFields = () => fields.filter((field) => !field.prose && field.kind !== "number").slice(0, 12);
const numberFields = () => fields.filter((field) => field.kind === "number").slice(0, 6);

function conditions(without) {
  const found = [];
  for (const [name, values] of Object.entries(state.chosen)) {
    if (name !== without && values.length) found.push({ terms: { field: [name], value: values } });
  }
  for (const [name, bounds] of Object.entries(state.ranges)) {
    const given = Object.fromEntries(Object.entries(bounds).filter(([, value]) => value !== null));
    if (Object.keys(given).length) found.push({ range: { field: [name], value: given } });
  }
  return found.length ? { bool: { must: found } } : undefined;
}

function body(more) {
  return { ...(state.query && { query: state.query }), ...more };
}

async function search() {
  const turn = ++asked;
  const order = state.sort ? [{ [state.sort.slice(1)]: state.sort[0] === "-" ? "desc" : "asc" }] : undefined;
  const open = facetFields().filter((field) => !(state.chosen[field.name] ?? []).length);
  const terms = (field) => ({ terms: { field: field.name, size: 12 } });
  const main = body({
    from: state.page * SIZE, size: SIZE, filter: conditions(), sort: order,
    aggs: Object.fromEntries(open.map((field) => [field.name, terms(field)])),
    ext: { ubi: { client_id: clientId, session_id: sessionId, ...(state.page && queryId && { query_id: queryId }) },
           estudio: { mode: state.mode } },
  });
  const further = facetFields().filter((field) => !open.includes(field)).map((field) => body({
    size: 0, filter: conditions(field.name), aggs: { [field.name]: terms(field) },
    ext: { estudio: { mode: state.mode, log: false } },
  }));
  const lines = [main, ...further].map((each) => `{}\n${JSON.stringify(each)}\n`).join("");
  await tried(async () => {
    const { responses } = await ask("POST", `/${plugin}/_msearch`, lines);
    if (turn !== asked) return;
    const failed = responses.find((each) => each.error);
    if (failed) throw new Problem(failed.status, failed.error.reason);
    $("key-form").hidden = true;
    const [answer, ...others] = responses;
    queryId = answer.ext.ubi.query_id;
    const counts = Object.assign({}, answer.aggregations, ...others.map((each) => each.aggregations));
    if (state.view === "judge") await readGrades();
    showFacets(counts);
    showHits(answer);
    showPages(answer.hits.total);
    $("footer").textContent = `Release ${answer.ext.estudio.release}, model version ${answer.ext.estudio.model_version}`;
  });
}

function remember() {
  const parameters = new URLSearchParams();
  if (state.query) parameters.set("q", state.query);
  if (state.page) parameters.set("page", state.page + 1);
  if (state.sort) parameters.set("sort", state.sort);
  if (state.mode !== "hybrid") parameters.set("mode", state.mode);
  if (state.view !== "search") parameters.set("view", state.view);
  const filters = { ...(Object.keys(state.chosen).length && { chosen: state.chosen }), ...(Object.keys(state.ranges).length && { ranges: state.ranges }) };
  if (Object.keys(filters).length) parameters.set("filters", JSON.stringify(filters));
  const address = `${location.pathname}${parameters.size ? `?${parameters}` : ""}`;
  if (address !== location.pathname + location.search) history.pushState(null, "", address);
}

function recall() {
  const parameters = new URLSearchParams(location.search);
  let filters = {};
  try { filters = JSON.parse(parameters.get("filters") ?? "{}"); } catch { /* somebody's own address */ }
  Object.assign(state, {
    query: parameters.get("q") ?? "", page: Math.max(0, (parseInt(parameters.get("page"), 10) || 1) - 1),
    sort: parameters.get("sort") ?? "", mode: parameters.get("mode") ?? "hybrid", view: parameters.get("view") ?? "search",
    chosen: filters.chosen ?? {}, ranges: filters.ranges ?? {},
  });
  $("query").value = state.query;
  $("mode").value = state.mode;
}

function go(change, { first = true } = {}) {
  Object.assign(state, change, first ? { page: 0 } : {});
  remember();
  show();
}

function show() {
  const compare = state.view === "compare";
  document.title = `${state.query ? `${state.query} · ` : ""}${label(plugin)}`;
  $("facets").hidden = $("results").hidden = compare;
  $("compare").hidden = !compare;
  $("judge-bar").hidden = state.view !== "judge";
  document.querySelector("main").classList.toggle("wide", compare);
  for (const button of document.querySelectorAll(".view")) button.setAttribute("aria-pressed", button.dataset.view === state.view);
  return compare ? showComparison() : search();
}

// ---- facets --------------------------------------------------------------------------------------------------------

function showFacets(counts) {
  const focused = document.activeElement?.id;
  const list = $("facet-list");
  list.replaceChildren();
  for (const field of facetFields()) {
    const chosen = state.chosen[field.name] ?? [];
    const buckets = (counts[field.name]?.buckets ?? []).map((bucket) => ({
      value: bucket.key_as_string ? bucket.key_as_string === "true" : bucket.key, name: bucket.key_as_string ?? String(bucket.key), count: bucket.doc_count,
    }));
    for (const value of chosen) {
      if (!buckets.some((bucket) => bucket.value === value)) buckets.push({ value, name: String(value), count: 0 });
    }
    if (!buckets.length) continue;
    list.append(make("fieldset", {}, make("legend", { textContent: label(field.name) }), ...buckets.map((bucket, place) => {
      const box = make("input", { type: "checkbox", checked: chosen.includes(bucket.value), id: `facet-${field.name}-${bucket.name}` });
      box.addEventListener("change", () => {
        const kept = chosen.filter((value) => value !== bucket.value);
        const values = box.checked ? [...kept, bucket.value] : kept;
        const { [field.name]: _, ...others } = state.chosen;
        go({ chosen: values.length ? { ...others, [field.name]: values } : others });
      });
      return make("label", {}, box, make("span", { textContent: bucket.name }), make("span", { textContent: number.format(bucket.count) }));
    })));
  }
  for (const field of numberFields()) {
    const bounds = state.ranges[field.name] ?? {};
    const input = (sign, name) => {
      const box = make("input", { type: "number", step: "any", value: bounds[sign] ?? "", placeholder: name, id: `range-${field.name}-${sign}`, aria: { label: `${label(field.name)} ${name}` } });
      box.addEventListener("change", () => {
        const value = box.value === "" ? null : Number(box.value);
        go({ ranges: { ...state.ranges, [field.name]: { ...bounds, [sign]: value } } });
      });
      return box;
    };
    list.append(make("fieldset", {}, make("legend", { textContent: label(field.name) }), make("div", { className: "range" }, input("gte", "from"), input("lte", "to"))));
  }
  const active = Object.values(state.chosen).flat().length + Object.values(state.ranges).filter((b) => Object.values(b).some((v) => v !== null)).length;
  $("facets-count").textContent = active ? `(${active})` : "";
  $("clear").hidden = !active;
  $("facets").hidden = !list.children.length || state.view === "compare";
  if (focused) $(focused)?.focus({ preventScroll: true });
}

function offerOrders() {
  const select = $("sort");
  select.replaceChildren(make("option", { value: "", textContent: "best first" }));
  for (const field of numberFields()) {
    select.append(make("option", { value: `+${field.name}`, textContent: `${label(field.name)}, lowest first` }));
    select.append(make("option", { value: `-${field.name}`, textContent: `${label(field.name)}, highest first` }));
  }
  select.value = state.sort;
}

// ---- hits ----------------------------------------------------------------------------------------------------------

const TITLES = ["title", "name", "headline", "label"];
const LINKS = ["url", "link", "href"];
const IMAGES = ["image", "image_url", "thumbnail", "picture"];
const isLink = (value) => typeof value === "string" && /^https?:\/\//i.test(value);

function titleOf(hit) {
  const source = hit._source ?? {};
  const name = TITLES.find((each) => typeof source[each] === "string" && source[each])
    ?? Object.keys(source).find((each) => typeof source[each] === "string" && source[each]);
  return [name, name ? source[name] : hit._id];
}

function showHits(answer) {
  const total = answer.hits.total;
  const list = $("hits");
  const first = state.page * SIZE;
  list.replaceChildren(...answer.hits.hits.map((hit, place) => make("li", {}, article(hit, first + place + 1))));
  const many = total.relation === "gte" ? `more than ${number.format(total.value)}` : number.format(total.value);
  $("status").textContent = answer.hits.hits.length
    ? `${first + 1} to ${first + answer.hits.hits.length} of ${many}${state.query ? ` for “${state.query}”` : ""}`
    : state.query ? `Nothing was found for “${state.query}”${Object.keys(state.chosen).length ? " with these filters" : ""}.` : "Nothing to show.";
}

function article(hit, place) {
  const [titleName, title] = titleOf(hit);
  const source = hit._source ?? {};
  const link = LINKS.map((name) => source[name]).find(isLink);
  const image = IMAGES.map((name) => source[name]).find((value) => isLink(value) && value.startsWith("https"));
  const rest = Object.entries(source).filter(([name, value]) => name !== titleName && value !== null && value !== "");
  const short = rest.filter(([, value]) => shown(value).length <= 40).slice(0, 6);
  const details = make("details", { className: "all" }, make("summary", { textContent: "All fields" }), listOf(rest));
  const heading = link
    ? make("a", { href: link, rel: "noopener noreferrer", textContent: title })
    : make("button", { type: "button", textContent: title });
  heading.addEventListener("click", () => {
    tell("click", hit, place);
    if (!link) details.open = !details.open;
  });
  const card = make("article", { className: "hit", tabIndex: state.view === "judge" ? 0 : -1, data: { id: hit._id } },
    image ? make("img", { src: image, alt: "", loading: "lazy", referrerPolicy: "no-referrer" }) : null,
    make("h2", {}, heading),
    make("p", { className: "facts" }, ...short.map(([name, value]) => make("span", { textContent: `${label(name)}: ${shown(value)}` })),
      hit.ext.estudio.personal ? make("span", { className: "badge", textContent: "your own" }) : null),
    details, state.query ? why(hit) : null, state.view === "judge" ? grading(hit) : null);
  return card;
}

const listOf = (pairs) => make("dl", {}, ...pairs.flatMap(([name, value]) => [make("dt", { textContent: label(name) }), make("dd", { textContent: shown(value) })]));

function why(hit) {
  const reasons = hit.ext.estudio;
  const rows = [];
  const bar = (value, max, text) => make("span", {}, make("meter", { min: 0, max, value: Math.max(0, value), aria: { label: text } }), ` ${number.format(value)}`);
  const row = (name, content) => rows.push(make("dt", { textContent: name }), make("dd", {}, content));
  if (reasons.similarity !== undefined) row("Meaning", bar(reasons.similarity, 1, "similarity of meaning"));
  if (reasons.words !== undefined) {
    const worth = reasons.words_weight === undefined ? reasons.words : reasons.words * reasons.words_weight;
    row("Words", reasons.words ? bar(worth, Math.max(1, worth), "what its words are worth") : "none of the query");
  }
  row("Personal", reasons.personal ? "your own row in place of everybody's" : "no");
  row("Score", number.format(hit._score));
  return make("details", { className: "why" }, make("summary", { textContent: "Why is this here?" }), make("dl", {}, ...rows));
}

function showPages(total) {
  const last = Math.min(Math.ceil(total.value / SIZE), 100);
  const turn = (page, text, name) => {
    const button = make("button", { type: "button", textContent: text, disabled: page < 0 || page >= last, aria: { label: name ?? `Page ${page + 1}` } });
    if (page === state.page) button.setAttribute("aria-current", "page");
    button.addEventListener("click", () => { go({ page }, { first: false }); $("results").focus(); });
    return button;
  };
  const near = [...new Set([0, state.page - 1, state.page, state.page + 1, last - 1])].filter((page) => page >= 0 && page < last).sort((a, b) => a - b);
  $("pages").replaceChildren(...(last > 1 ? [turn(state.page - 1, "‹", "Page before"), ...near.map((page) => turn(page, String(page + 1))), turn(state.page + 1, "›", "Next page")] : []));
}

// ---- judging -------------------------------------------------------------------------------------------------------

async function readGrades() {
  const judge = $("judge").value.trim();
  grades = {};
  if (!state.query || !judge) return;
  const found = await ask("GET", `/${plugin}/_judgments?${new URLSearchParams({ query: state.query, judge })}`);
  grades = Object.fromEntries(found.judgments.map((each) => [each.object_id, each.grade]));
}

function grading(hit) {
  const set = make("fieldset", { className: "grades" }, make("legend", { textContent: "It fits" }));
  GRADES.forEach((name, grade) => {
    const box = make("input", { type: "radio", name: `grade-${hit._id}`, value: grade, checked: grades[hit._id] === grade });
    box.addEventListener("change", () => keepGrade(hit, grade));
    set.append(make("label", {}, box, `${grade} ${name}`));
  });
  return set;
}

function keepGrade(hit, grade) {
  const judge = $("judge").value.trim();
  if (!state.query || !judge) {
    complain(new Error(judge ? "Search for something first: a grade belongs to a query." : "Give your name first: grades are kept by who gave them."));
    return undefined;
  }
  return tried(async () => {
    await ask("PUT", `/${plugin}/_judgments`, { query: state.query, object_id: hit._id, grade, judge });
    grades[hit._id] = grade;
    $("status").textContent = `“${titleOf(hit)[1]}” fits ${GRADES[grade]}: kept.`;
  });
}

document.addEventListener("keydown", (event) => {
  if (state.view !== "judge" || !/^[0-3]$/.test(event.key) || event.ctrlKey || event.metaKey || event.altKey) return;
  const card = event.target.closest?.(".hit");
  const box = card?.querySelector(`input[value="${event.key}"]`);
  if (!box || /^(input|select|textarea)$/i.test(event.target.tagName) && event.target.type !== "radio") return;
  box.click();
});

async function exportGrades() {
  await tried(async () => {
    const table = await ask("GET", `/${plugin}/_judgments?format=csv`);
    const address = URL.createObjectURL(new Blob([table], { type: "text/csv" }));
    make("a", { href: address, download: `${plugin}-judgments.csv` }).click();
    URL.revokeObjectURL(address);
  });
}

// ---- comparing -----------------------------------------------------------------------------------------------------

const sides = [{ release: "live", mode: "hybrid" }, { release: "live", mode: "words" }];
let releases = null;

async function showComparison() {
  const place = $("compare");
  await tried(async () => {
    if (releases === null) {
      releases = (await ask("GET", `/${plugin}/_releases`)).releases;
      const other = releases.find((each) => each.state !== "live");
      if (other) sides[1] = { release: other.release, mode: "hybrid" };
    }
    $("key-form").hidden = true;
    const head = sides.map((side, number) => choices(side, number));
    if (!state.query) {
      place.replaceChildren(make("p", { textContent: "Search for something to see two rankings of it side by side." }), make("div", { className: "sides" }, ...head));
      return;
    }
    const answer = await ask("POST", `/${plugin}/_compare`, { query: state.query, size: SIZE, sides });
    const ids = answer.sides.map((side) => side.hits.map((hit) => hit._id));
    const lists = answer.sides.map((side, number) => make("ol", {}, ...side.hits.map((hit, rank) => {
      const before = ids[1 - number].indexOf(hit._id);
      const text = before < 0 ? "only here" : before === rank ? "same place" : before > rank ? `▲ ${before - rank} against the other` : `▼ ${rank - before} against the other`;
      const kind = before < 0 || before > rank ? "moved-up" : before < rank ? "moved-down" : "";
      return make("li", { className: "hit" }, make("h2", { textContent: `${rank + 1}. ${titleOf(hit)[1]}` }), make("p", { className: kind, textContent: text }), why(hit));
    })));
    const shared = ids[0].filter((id) => ids[1].includes(id)).length;
    place.replaceChildren(
      make("p", { role: "status", textContent: `${shared} of ${Math.max(ids[0].length, ids[1].length)} results stand in both.` }),
      make("div", { className: "sides" }, ...[0, 1].map((number) => make("div", {}, head[number], lists[number]))));
  });
}

function choices(side, number) {
  const name = number ? "Second" : "First";
  const release = make("select", { aria: { label: `${name} release` } }, ...releases.map((each) => make("option", {
    value: String(each.state === "live" ? "live" : each.release), textContent: `release ${each.release}, version ${each.model_version} (${each.state})` })));
  release.value = String(side.release);
  const mode = make("select", { aria: { label: `${name} ranking` } }, ...[["hybrid", "words and meaning"], ["vector", "meaning"], ["words", "words"]].map(([value, textContent]) => make("option", { value, textContent })));
  mode.value = side.mode;
  release.addEventListener("change", () => { side.release = release.value === "live" ? "live" : Number(release.value); showComparison(); });
  mode.addEventListener("change", () => { side.mode = mode.value; showComparison(); });
  return make("div", { className: "bar" }, release, mode);
}

// ---- beginning -----------------------------------------------------------------------------------------------------

async function begin() {
  $("plugin").textContent = label(plugin);
  recall();
  await tried(async () => { fields = (await ask("GET", `/${plugin}/_fields`)).fields; });
  offerOrders();
  $("facets-fold").open = !matchMedia("(max-width: 46rem)").matches;
  await show();
}

$("search").addEventListener("submit", (event) => { event.preventDefault(); queryId = null; go({ query: $("query").value.trim() }); });
$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("estudio.key", $("key").value.trim());
  $("key").value = "";
  $("key-form").hidden = true;
  begin();
});
$("clear").addEventListener("click", () => { go({ chosen: {}, ranges: {} }); $("query").focus(); });
$("sort").addEventListener("change", () => go({ sort: $("sort").value }));
$("mode").addEventListener("change", () => go({ mode: $("mode").value }));
$("export").addEventListener("click", exportGrades);
$("judge").value = stored(localStorage, "estudio.judge", () => "");
$("judge").addEventListener("change", () => { localStorage.setItem("estudio.judge", $("judge").value.trim()); show(); });
for (const button of document.querySelectorAll(".view")) button.addEventListener("click", () => go({ view: button.dataset.view }, { first: false }));
addEventListener("popstate", () => { recall(); show(); });
begin();
