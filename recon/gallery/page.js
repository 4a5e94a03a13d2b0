"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const by = id => document.getElementById(id);
const words = name => name.replaceAll("_", " ");
const number = (x, digits = 3) => x.toFixed(digits);
const percent = x => (100 * x).toFixed(1) + " %";
const pvalue = p => p < 0.001 ? "< .001" : p.toFixed(3).replace(/^0/, "");
const KEYS = [
  [["↓", "↑"], "or", ["j", "k"], "next and previous stimulus"], [["Enter"], "", [], "enlarge it"],
  [["←", "→"], "", [], "enlarged: the other pictures of the stimulus"], [["/"], "", [], "search"],
  [["o"], "", [], "turn the order round"], [["c"], "", [], "clear the filters"], [["s"], "", [], "next subject"],
  [["t"], "", [], "dark or light"], [["?"], "", [], "this help"], [["Esc"], "", [], "close"]];
const WORDS = {
  "reconstructed": "made from the brain's predicted tokens; scores are of this one, never of the best sample",
  "further seeds": "the same tokens, other starting noise: what differs between them the brain did not decide",
  "low level": "what the low-level path decodes by itself, before the generator",
  "evidence": "white where the brain decided the picture, black where the generator added it",
  "the brain's part": "the reconstruction seen through its map of evidence",
  "retrieved": "the test pictures nearest to the predicted embedding; a green frame is the seen one"};
const SHOWS = [["others", "further seeds", run => run.items.some(item => item.others.length)],
  ["low", "low level", run => run.items.some(item => item.low_level !== null)],
  ["evidence", "evidence", run => run.items.some(item => item.evidence !== null)],
  ["controls", "controls", run => run.controls.length], ["retrieved", "retrieved", () => true]];
let run, report, entries, metrics, shown = [];
const state = {sort: "", down: true, group: "all", text: "", concept: "", metric: "", low: 0, high: 100, at: ""};
const cards = new Map();

function node(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) if (value !== null) made.setAttribute(key, value);
  made.append(...children);
  return made;
}
function facts() {
  const rows = [["study", report.study], ["subject", report.subject], ["layer", `${report.layer} of ${report.backbone}`],
    ["layer chosen on", report.layer_chosen_on], ["encoder", report.encoder], ["generator", report.generator], ["tokens", report.tokens],
    ["test stimuli", report.n_stimuli], ["judge", run.judges.join("; ")], ["seed", report.seed], ["seed of the pictures", run.image_seed]];
  by("facts").replaceChildren(...rows.filter(pair => pair[1] !== undefined).map(([name, value]) => node("div", {}, node("dt", {}, name), node("dd", {}, String(value)))));
  document.title = `Seen and reconstructed: ${report.study}, subject ${report.subject}`;
}
function table(name, head, rows) {
  const line = (cells, kind, first) => cells.map((cell, k) => node(k ? kind : first, k && kind === "td" ? {} : {scope: kind === "td" ? "row" : "col"}, cell));
  return node("div", {class: "scroll", tabindex: "0", role: "region", "aria-label": name}, node("table", {},
    node("thead", {}, node("tr", {}, ...line(head, "th", "th"))),
    node("tbody", {}, ...rows.map(([kind, cells]) => node("tr", {class: kind}, ...line(cells, "td", "th"))))));
}
function bars(svg, name, from = -Infinity, to = Infinity) {
  const values = run.items.map(item => value(item, name)), [least, most] = span(name), count = 24, heights = Array(count).fill(0);
  const bin = x => Math.min(count - 1, Math.floor((x - least) / (most - least || 1) * count));
  for (const x of values) heights[bin(x)] += 1;
  const highest = Math.max(...heights);
  svg.setAttribute("viewBox", `0 0 ${count * 4} 24`); svg.setAttribute("preserveAspectRatio", "none");
  svg.replaceChildren(...heights.map((height, k) => {
    const bar = document.createElementNS("http://www.w3.org/2000/svg", "rect"), tall = height ? Math.max(1.5, 24 * height / highest) : 0;
    const inside = least + (k + 1) * (most - least) / count > from && least + k * (most - least) / count < to;
    for (const [key, x] of Object.entries({x: k * 4, y: 24 - tall, width: 3, height: tall, class: inside ? "on" : ""})) bar.setAttribute(key, x);
    return bar;
  }));
  return svg;
}
function auditPanel() {
  const audit = run.audit, made = audit.findings.filter(finding => finding.verdict !== "not checked");
  const partly = audit.verdict === "clear" && !audit.complete;  // green only where no essential check is missing
  const kind = audit.verdict === "not checked" || partly ? "unchecked" : audit.verdict;
  const tag = partly ? `audit: clear in ${made.length} of ${audit.findings.length} checks` : `audit: ${audit.verdict}`;
  const order = ["leak", "suspect", "clear", "not checked"];
  const rows = [...audit.findings].sort((a, b) => order.indexOf(a.verdict) - order.indexOf(b.verdict))
    .map(finding => ["", [words(finding.check), node("span", {class: finding.verdict === "not checked" ? "unchecked" : finding.verdict}, finding.verdict), finding.evidence]]);
  const panel = node("section", {class: "panel wide audit", "aria-label": "Audit"}, node("span", {class: `tag ${kind}`}, made.length ? tag : "not audited"),
    node("p", {}, audit.summary), node("p", {class: "note"}, `${made.length} of ${audit.findings.length} checks were made. ${audit.source}`));
  if (rows.length) {
    const all = table("Findings of the audit", ["check", "verdict", "evidence"], rows);
    all.firstChild.className = "findings";
    panel.append(node("details", {}, node("summary", {}, `All ${rows.length} checks`), all));
  }
  return panel;
}
function subjectsPanel() {
  const names = data.runs[0].headline, rows = data.runs.map((other, k) => {
    const button = node("button", {type: "button", class: "plain"}, other.label);
    button.addEventListener("click", () => select(k));
    const part = other.report.retrieval && other.report.retrieval.brain_to_image;
    return [other === run ? "own" : "", [button, other.report.study, `${other.report.layer} of ${other.report.backbone}`, String(other.report.n_stimuli),
      ...names.map(name => other.report.reconstruction[name] ? number(other.report.reconstruction[name].value) : "–"), part ? percent(part.top1) : "–", part ? percent(part.chance_top1) : "–"]];
  });
  return node("section", {class: "panel"}, node("h2", {}, "Subjects"), table("Subjects", ["subject", "study", "layer", "stimuli", ...names, "top-1", "chance"], rows));
}
function retrievalPanel() {
  const one = (name, text) => {
    const part = report.retrieval[name];
    return node("div", {class: "big"}, node("b", {}, percent(part.top1)), node("span", {}, `${text}, top-1 of ${part.candidates}`),
      node("span", {}, `95 % interval ${percent(part.ci95_top1[0])} to ${percent(part.ci95_top1[1])}`),
      node("span", {}, `chance ${percent(part.chance_top1)}, p ${pvalue(part.p_permutation)}`),
      node("span", {}, `top-5 ${percent(part.top5)}, median rank ${part.median_rank}`));
  };
  return node("section", {class: "panel"}, node("h2", {}, "Retrieval"), node("div", {class: "bigs"}, one("brain_to_image", "brain to image"), one("image_to_brain", "image to brain")));
}
function attributePanel() {
  const names = Object.keys(report.attributes), rows = ["shuffled", "oracle", "seen"];
  return node("section", {class: "panel"}, node("h2", {}, "Attributes read back by the reader"),
    table("Attributes", ["", "reconstruction", "chance", ...rows, "p chance", "p shuffled"], names.map(name => {
      const part = report.attributes[name];
      return ["", [words(name), number(part.accuracy, 2), number(part.chance, 2), ...rows.map(row => row in part.controls ? number(part.controls[row], 2) : "–"),
        pvalue(part.p_permutation), "shuffled" in part.p_vs_control ? pvalue(part.p_vs_control.shuffled) : "–"]];
    })));
}
function scorePanel() {
  const rows = [["own", ["reconstruction", ...metrics.map(name => number(entries[name].value))]]];
  rows.push(["spread", ["over stimuli", ...metrics.map(name => bars(document.createElementNS("http://www.w3.org/2000/svg", "svg"), name))]]);
  for (const {name} of run.controls) rows.push(["", [words(name), ...metrics.map(metric => number(report.controls[name][metric].value))]]);
  for (const name of ["shuffled", "grey", "mean_image", "pixel_ridge", "likeliest_library_image"]) {
    if (report.controls[name]) rows.push(["p", [`p against ${words(name)}`, ...metrics.map(metric => pvalue(entries[metric].p_vs_control[name]))]]);
  }
  const arrow = {higher: " ↑", lower: " ↓"}, skipped = Object.keys(report.skipped || {});
  return node("section", {class: "panel"}, node("h2", {}, "Reconstructions beside their controls"),
    table("Scores", ["", ...metrics.map(name => name + arrow[entries[name].better])], rows),
    node("p", {class: "note"}, `Means over ${entries[metrics[0]].n} stimuli; one-sided paired sign-flip p over stimuli. ` + (skipped.length ? `Skipped: ${skipped.join(", ")} (reasons in report.json).` : "")));
}
function curvesPanel() {
  return node("section", {class: "panel wide curves", "aria-label": "Curves"}, node("h2", {}, "Pictures by components of the tokens, and by repetitions averaged"),
    node("img", {src: run.curves.image, alt: `Scores of the pictures in two curves. ${run.curves.text}`}), node("p", {class: "note"}, run.curves.text));
}
function pictures(item) {
  const several = run.items.some(other => other.others.length);
  const list = [{images: [item.seen], name: "seen", alt: `seen: ${item.caption || item.id}`},
    {images: [item.reconstructed], name: several ? `seed ${run.image_seed}, scored` : "reconstructed", alt: several ? `reconstructed, seed ${run.image_seed}, scored` : "reconstructed"},
    ...item.others.map(([seed, image]) => ({images: [image], name: `seed ${seed}`, alt: `reconstructed, seed ${seed}, not scored`, kind: "others"}))];
  if (item.low_level !== null) list.push({images: [item.low_level], name: "low level", alt: `low level: ${WORDS["low level"]}`, kind: "low"});
  if (item.evidence !== null) {
    const lit = item.lit === null ? "" : ` ${(100 * item.lit).toFixed(0)} %`;
    list.push({images: [item.evidence], name: `evidence${lit}`, alt: `map of evidence, white where the brain decided:${lit || " share not stated"}`, kind: "evidence"},
      {images: [item.reconstructed, item.evidence], name: "the brain's part", alt: WORDS["the brain's part"], kind: "evidence"});
  }
  const main = list.length;
  run.controls.forEach(({name, text}, k) => list.push({images: [item.controls[k]], name: words(name), alt: `${words(name)}: ${text}`, kind: "controls"}));
  item.retrieved.forEach((id, k) => {
    const [image, caption] = run.candidates[id], own = id === item.id;
    list.push({images: [image], name: own ? "the seen picture" : caption || id, alt: `retrieved, place ${k + 1}: ${own ? "the seen picture, " : ""}${caption || id}`, kind: own ? "retrieved right" : "retrieved"});
  });
  return {list, main};
}
function figure(picture, zoomed = false) {
  const stack = node("div", {class: "stack"}, ...picture.images.map((image, k) => node("img", {src: data.images[image], alt: k ? "" : picture.alt, loading: zoomed ? null : "lazy", decoding: "async"})));
  return node("figure", {class: picture.kind || "", title: zoomed ? null : picture.alt}, stack, node("figcaption", {}, zoomed && picture.kind ? picture.alt : picture.name));
}
function scoreList(item, tag) {
  return [...metrics, "rank"].flatMap(name => {
    const pair = [node("dt", {"data-score": name}, name), node("dd", {"data-score": name}, name === "rank" ? String(item.rank) : number(item.scores[name]))];
    return tag ? [node(tag, {}, ...pair)] : pair;
  });
}
function card(item) {
  const {list, main} = pictures(item), about = node("div", {class: "about"});
  if (item.group) about.append(node("span", {class: `tag ${item.group}`, title: `by ${run.rule.join(", then ")}; never picked by hand`}, item.group));
  about.append(node("p", {}, item.caption || item.concept || item.id), node("p", {class: "id"}, item.id), node("dl", {class: "scores"}, ...scoreList(item)));
  const made = node("article", {class: SHOWS.slice(0, 3).some(([, , there]) => there(run)) ? "item rich" : "item", tabindex: "-1", "aria-label": item.caption || item.id});
  const opened = (picture, k) => {
    const button = node("button", {class: "enlarge", type: "button", tabindex: k === 1 ? "0" : "-1"}, figure(picture), node("span", {class: "hidden"}, `, enlarge`));
    if (picture.kind) button.classList.add(...picture.kind.split(" ").filter(kind => kind !== "right"));
    button.addEventListener("click", () => zoom(item, k));
    return button;
  };
  const all = list.map(opened), controls = main + run.controls.length;
  const group = (kind, title, buttons) => node("section", {class: `group ${kind}`}, node("h3", {}, title), node("div", {class: "strip"}, ...buttons));
  const rest = node("div", {class: "rest"}, group("retrieved", "Retrieved by the brain, nearest first", all.slice(controls)));
  if (run.controls.length) rest.prepend(group("controls", "Controls", all.slice(main, controls)));
  made.append(about, node("div", {class: "main"}, ...all.slice(0, main)), rest);
  made.addEventListener("keydown", event => { if (event.key === "Enter" && event.target === made) { event.preventDefault(); zoom(item, 1); } });
  made.addEventListener("focusin", () => point(item.id));
  return made;
}
function cardOf(item) {
  const key = `${data.runs.indexOf(run)} ${item.id}`;
  if (!cards.has(key)) cards.set(key, card(item));
  return cards.get(key);
}
function point(id) {
  state.at = id;
  for (const item of shown) cardOf(item).tabIndex = item.id === id ? 0 : -1;
}
const looking = {item: null, k: 1, list: []};
function zoom(item, k) {
  Object.assign(looking, {item, k, list: pictures(item).list});
  by("zoom-title").textContent = item.caption || item.id;
  by("zoom-scores").replaceChildren(...scoreList(item, "div"));
  by("thumbs").replaceChildren(...looking.list.map((picture, place) => {
    const button = node("button", {type: "button", title: picture.name}, node("div", {class: "stack"}, ...picture.images.map((image, n) => node("img", {src: data.images[image], alt: n ? "" : picture.name}))));
    button.addEventListener("click", () => look(place));
    return button;
  }));
  mark(); look(k);
  if (!by("zoom").open) by("zoom").showModal();
}
function look(k) {
  const {list, item} = looking;
  looking.k = (k + list.length) % list.length;
  const picture = list[looking.k];
  by("large").replaceChildren(...(looking.k ? [figure(list[0], true)] : []), figure(picture, true));
  by("zoom-where").textContent = `${picture.name}: picture ${looking.k + 1} of ${list.length}, stimulus ${shown.indexOf(item) + 1} of ${shown.length} (${item.id})`;
  [...by("thumbs").children].forEach((button, place) => button.setAttribute("aria-pressed", String(place === looking.k)));
}
function moveItem(step) {
  const next = shown[Math.max(0, Math.min(shown.length - 1, shown.indexOf(looking.item) + step))];
  if (next !== looking.item) zoom(next, Math.min(looking.k, pictures(next).list.length - 1));
}
const better = name => name === "rank" ? "lower" : entries[name].better;
function value(item, name) { return name === "rank" ? item.rank : item.scores[name]; }
function span(name) { const values = run.items.map(item => value(item, name)); return [Math.min(...values), Math.max(...values)]; }
function limits() {
  const [least, most] = span(state.metric), at = step => least + (most - least) * step / 100;
  return [state.low === 0 ? -Infinity : at(state.low), state.high === 100 ? Infinity : at(state.high)];
}
function compare(a, b) {
  const place = run.items.indexOf(a) - run.items.indexOf(b);
  if (state.sort === "id") return state.down ? place : -place;
  for (const name of [state.sort, ...run.rule.filter(name => name !== state.sort)]) {
    const gain = (value(b, name) - value(a, name)) * (better(name) === "higher" ? 1 : -1);
    if (gain) return state.down ? gain : -gain;
  }
  return place;
}
function mark() { for (const part of document.querySelectorAll("[data-score]")) part.classList.toggle("by", part.dataset.score === state.sort); }
function render() {
  const text = state.text.toLowerCase(), [from, to] = limits();
  shown = run.items.filter(item => (state.group === "all" || item.group === state.group) && (!state.concept || item.concept === state.concept) &&
    (!text || [item.id, item.caption, item.concept].some(part => part.toLowerCase().includes(text))) &&
    value(item, state.metric) >= from && value(item, state.metric) <= to).sort(compare);
  by("list").replaceChildren(...(shown.length ? shown.map(cardOf) : [node("p", {class: "empty"}, "No stimulus matches. Press c, or clear the filters above.")]));
  shown.forEach((item, k) => { cardOf(item).setAttribute("aria-posinset", k + 1); cardOf(item).setAttribute("aria-setsize", shown.length); });
  if (shown.length) point(shown.some(item => item.id === state.at) ? state.at : shown[0].id);
  mark();
  const [least, most] = span(state.metric), digits = state.metric === "rank" ? 0 : 2;
  const told = [from === -Infinity ? least : from, to === Infinity ? most : to].map(x => number(x, digits));
  by("range").textContent = `${told[0]} to ${told[1]}`;
  by("low").setAttribute("aria-valuetext", told[0]); by("high").setAttribute("aria-valuetext", told[1]);
  by("low").style.zIndex = state.low > 50 ? 2 : "";
  bars(by("spread"), state.metric, from, to);
  by("count").textContent = `${shown.length} of ${run.items.length}`;
  by("clear").hidden = !(state.text || state.concept || state.group !== "all" || state.low > 0 || state.high < 100);
  by("order").textContent = state.sort === "id" ? (state.down ? "First first" : "Last first") : (state.down ? "Best first" : "Worst first");
  for (const button of by("groups").children) button.setAttribute("aria-pressed", String(button.dataset.group === state.group));
}
function clear() {
  Object.assign(state, {group: "all", text: "", concept: "", low: 0, high: 100});
  by("filter").value = ""; by("concept").value = ""; by("low").value = 0; by("high").value = 100;
  render();
}
function options(id, list, chosen) {
  by(id).replaceChildren(...list.map(([value, text]) => node("option", {value}, text)));
  by(id).value = list.some(([value]) => value === chosen) ? chosen : list[0][0];
  return by(id).value;
}
function select(k) {
  run = data.runs[k]; report = run.report; entries = report.reconstruction; metrics = Object.keys(entries);
  facts();
  const panels = [auditPanel()];
  const side = [data.runs.length > 1 && subjectsPanel(), report.retrieval && retrievalPanel(), report.attributes && attributePanel()].filter(Boolean);
  panels.push(scorePanel(), ...(side.length ? [node("div", {class: "side"}, ...side)] : []), ...(run.curves ? [curvesPanel()] : []));
  by("panels").replaceChildren(...panels);
  const scores = [...metrics.map(name => [name, name]), ["rank", "retrieval rank"]], kept = state.metric;
  state.sort = options("sort", [...scores, ["id", "order of the test split"]], state.sort || run.rule[0]);
  state.metric = options("metric", scores, state.metric || run.rule[0]);
  if (state.metric !== kept) { state.low = 0; state.high = 100; by("low").value = 0; by("high").value = 100; }
  const counts = new Map();
  for (const item of run.items) if (item.concept) counts.set(item.concept, (counts.get(item.concept) || 0) + 1);
  const concepts = [...counts].sort((a, b) => a[0].localeCompare(b[0])).map(([name, count]) => [name, `${words(name)} (${count})`]);
  state.concept = options("concept", [["", "all"], ...concepts], state.concept);
  by("concept").parentElement.hidden = counts.size < 2;
  for (const label of by("shows").children) label.hidden = !SHOWS.find(([name]) => name === label.dataset.name)[2](run);
  for (const button of by("runs").children) button.setAttribute("aria-pressed", String(Number(button.dataset.run) === k));
  const left = run.seeds_left_out ? [["more seeds", `${run.seeds_left_out} further seeds of the run are not on this page`]] : [];
  const rule = run.evidence_rule ? [["rule of the evidence", run.evidence_rule]] : [];
  by("words").replaceChildren(...[...Object.entries(WORDS), ...rule, ...left, ...run.controls.map(({name, text}) => [words(name), text])].flatMap(([name, text]) => [node("dt", {}, name), node("dd", {}, text)]));
  render();
}
function toolbar() {
  data.runs.forEach((other, k) => {
    const button = node("button", {type: "button", "data-run": k}, other.label);
    button.addEventListener("click", () => select(k));
    by("runs").append(button);
  });
  by("runs").hidden = data.runs.length < 2;
  for (const [group, text] of [["all", "All"], ["best", "Best"], ["median", "Median"], ["worst", "Worst"]]) {
    const button = node("button", {type: "button", "data-group": group}, text);
    button.addEventListener("click", () => { state.group = group; render(); });
    by("groups").append(button);
  }
  for (const [name, text] of SHOWS) {
    const box = node("input", {type: "checkbox", id: `show-${name}`}); box.checked = true;
    box.addEventListener("change", () => by("list").classList.toggle(`hide-${name}`, !box.checked));
    by("shows").append(node("label", {"data-name": name}, box, text));
  }
  const on = (id, kind, act) => by(id).addEventListener(kind, event => act(event.target.value));
  on("sort", "change", value => { state.sort = value; render(); });
  on("concept", "change", value => { state.concept = value; render(); });
  on("metric", "change", value => { Object.assign(state, {metric: value, low: 0, high: 100}); by("low").value = 0; by("high").value = 100; render(); });
  on("low", "input", value => { state.low = Math.min(Number(value), state.high); by("low").value = state.low; render(); });
  on("high", "input", value => { state.high = Math.max(Number(value), state.low); by("high").value = state.high; render(); });
  on("filter", "input", value => { state.text = value.trim(); render(); });
  on("size", "input", value => document.documentElement.style.setProperty("--thumb", value + "px"));
  by("order").addEventListener("click", () => { state.down = !state.down; render(); });
  by("clear").addEventListener("click", () => { clear(); by("filter").focus(); });
  by("skip").addEventListener("click", () => move(0));
  by("help-open").addEventListener("click", () => by("help").showModal());
  by("keys").append(...KEYS.flatMap(([first, or, second, text]) => [node("dt", {}, ...[...first, ...second].flatMap((key, k) => [k && k === first.length ? ` ${or} ` : k ? " " : "", node("kbd", {}, key)])), node("dd", {}, text)]));
  for (const dialog of document.querySelectorAll("dialog")) {
    dialog.addEventListener("click", event => { if (event.target === dialog || event.target.hasAttribute("data-close")) dialog.close(); });
  }
  for (const button of document.querySelectorAll("[data-picture]")) button.addEventListener("click", () => look(looking.k + Number(button.dataset.picture)));
  for (const button of document.querySelectorAll("[data-item]")) button.addEventListener("click", () => moveItem(Number(button.dataset.item)));
  by("zoom").addEventListener("close", () => { if (looking.item.id !== state.at && shown.includes(looking.item)) bring(looking.item); });
  document.addEventListener("keydown", keys);
}
function bring(item) {
  point(item.id);
  cardOf(item).focus({preventScroll: true}); cardOf(item).scrollIntoView({block: "nearest"});
}
function move(count) {
  if (!shown.length) return;
  const inside = document.activeElement.closest(".item"), at = shown.findIndex(item => item.id === state.at);
  bring(shown[Math.max(0, Math.min(shown.length - 1, inside ? at + count : at))]);
}
function keys(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || by("help").open) return;
  const letter = event.key.length === 1, typing = /^(INPUT|SELECT)$/.test(event.target.tagName) && event.target.type !== "checkbox";
  if (typing || letter && !by("letters").checked) return;
  const up = {ArrowDown: 1, j: 1, ArrowUp: -1, k: -1}[event.key];
  const act = by("zoom").open ? {ArrowLeft: () => look(looking.k - 1), ArrowRight: () => look(looking.k + 1), Home: () => look(0), End: () => look(looking.list.length - 1), ...(up && {[event.key]: () => moveItem(up)})}[event.key]
    : {"/": () => by("filter").focus(), "?": () => by("help").showModal(), o: () => by("order").click(), c: clear, t: () => by("theme").click(),
      s: () => select((data.runs.indexOf(run) + 1) % data.runs.length), ...(up && {[event.key]: () => move(up)})}[event.key];
  if (act) { event.preventDefault(); act(); }
}
function theme() {
  const system = matchMedia("(prefers-color-scheme: dark)");
  let chosen = location.hash.match(/^#(dark|light)$/)?.[1] || null;
  const apply = () => {
    const now = chosen || (system.matches ? "dark" : "light");
    document.documentElement.dataset.theme = now;
    by("theme").textContent = now === "dark" ? "Light" : "Dark";
    by("theme").setAttribute("aria-label", `Switch to ${now === "dark" ? "light" : "dark"} colours`);
  };
  by("theme").addEventListener("click", () => { chosen = document.documentElement.dataset.theme === "dark" ? "light" : "dark"; apply(); });
  system.addEventListener("change", apply);
  apply();
}
theme(); toolbar(); select(0);
