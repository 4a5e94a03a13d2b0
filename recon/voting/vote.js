"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const by = id => document.getElementById(id);
const HASTE = 200;  // ms after a question appears in which a choice is the end of the last one, not an answer
const votes = Array(data.trials.length).fill(null);
const state = {at: 0, since: 0, voter: "", saved: true};

function part(name) { for (const id of ["start", "ask", "done"]) by(id).hidden = id !== name; }
function ask(at) {
  state.at = at;
  part(at < votes.length ? "ask" : "done");
  if (at === votes.length) { by("thanks").focus(); return; }
  ["shown", "left", "right"].forEach((id, k) => { by(id).src = data.images[data.trials[at][k]]; });
  by("where").textContent = `Question ${at + 1} of ${votes.length}`;
  by("progress").max = votes.length; by("progress").value = at;
  by("back").hidden = at === 0;
  document.activeElement?.blur();
  state.since = performance.now();
}
function choose(choice) {
  const passed = performance.now() - state.since;
  if (by("ask").hidden || passed < HASTE) return;
  votes[state.at] = {choice, seconds: (passed / 1000).toFixed(2)};
  state.saved = false;
  ask(state.at + 1);
}
function back() { if (!by("start").hidden || state.at === 0) return; ask(state.at - 1); }
const quoted = text => `"${text.replaceAll('"', '""')}"`;
function csv() {
  const rows = votes.flatMap((vote, k) => vote ? [[data.table, quoted(state.voter), k + 1, vote.choice, vote.seconds].join(",")] : []);
  return ["table,voter,trial,choice,seconds", ...rows].join("\n") + "\n";
}
function save() {
  const link = document.createElement("a"), address = URL.createObjectURL(new Blob([csv()], {type: "text/csv"}));
  link.href = address;
  link.download = `votes_${data.table}_${state.voter.replace(/[^\p{L}\p{N}_-]+/gu, "-")}.csv`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
  state.saved = true;
}
function keys(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || !by("start").hidden) return;
  const act = {ArrowLeft: () => choose("left"), ArrowRight: () => choose("right"), Backspace: back}[event.key];
  if (act) { event.preventDefault(); act(); }
}
function theme() {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const apply = () => { document.documentElement.dataset.theme = dark.matches ? "dark" : "light"; };
  dark.addEventListener("change", apply);
  apply();
}
by("about").textContent = `${data.about}, ${votes.length} questions`;
by("enter").addEventListener("submit", event => {
  event.preventDefault();
  state.voter = by("voter").value.trim();
  if (state.voter) ask(0);
});
for (const button of document.querySelectorAll("[data-choice]")) button.addEventListener("click", () => choose(button.dataset.choice));
for (const button of document.querySelectorAll(".save")) button.addEventListener("click", save);
for (const id of ["back", "again"]) by(id).addEventListener("click", back);
document.addEventListener("keydown", keys);
addEventListener("beforeunload", event => { if (!state.saved) event.preventDefault(); });
theme();
