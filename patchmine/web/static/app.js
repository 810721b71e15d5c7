/* The script of all pages, on a server and from plain files. Text from the index only ever becomes text, never markup. */
(() => {
"use strict";

const $ = (selector, within = document) => within.querySelector(selector);
const $$ = (selector, within = document) => [...within.querySelectorAll(selector)];
const live = document.body.hasAttribute("data-live");
const root = document.body.dataset.root;
document.documentElement.classList.toggle("live", live);

/** An element with attributes and children; a function is a listener, such as {onclick: f}. */
function make(tag, attributes = {}, ...children) {
  const found = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") found[name] = value;
    else if (value !== null && value !== undefined && value !== false) found.setAttribute(name, value === true ? "" : value);
  }
  found.append(...children.filter((child) => child !== null && child !== undefined));
  return found;
}

/** Change the address without a visit; some browsers refuse that for a page from the file system. */
function readdress(address) {
  try { history.replaceState(null, "", address); } catch { /* the page works without */ }
}

const short = (number) => (number === null ? "–" : Number(number.toPrecision(3)).toString());

/** The JSON of an address. Throws an Error with the server's own words. */
async function asked(address, options) {
  let answer;
  try {
    answer = await fetch(address, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer: is patchmine serve still running?");
  }
  const document_ = await answer.json().catch(() => ({ error: `The server answered ${answer.status}` }));
  if (!answer.ok) throw new Error(document_.error);
  return document_;
}

/* ---- search ---- */

let list = null;

/** What can be searched, loaded when it is first needed: {layers: [{name, page, units, end}], units: [[layer, channel, name, evidence, fit]]}. */
function loadList() {
  list ??= new Promise((resolve, reject) => {
    const script = make("script", { src: document.body.dataset.search });
    script.onload = () => resolve(window.patchmine);
    script.onerror = () => { list = null; reject(new Error("The list of units could not be loaded")); };
    document.head.append(script);
  });
  return list;
}

const layerPage = (layer) => root + layer.page;
const unitPage = (layer, channel) => root + layer.units + channel + layer.end;

function matches(data, query) {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  if (!words.length) return [];
  const found = [];
  for (const layer of data.layers) {
    if (words.every((word) => layer.name.toLowerCase().includes(word)))
      found.push({ score: -2, href: layerPage(layer), name: layer.name, about: "layer" });
  }
  for (const [number, channel, name, evidence, fit] of data.units) {
    const unit = `${data.layers[number].name}:${channel}`;
    const lowered = name.toLowerCase();
    const text = `${lowered} ${evidence.toLowerCase()} ${unit.toLowerCase()}`;
    if (!words.every((word) => text.includes(word))) continue;
    const score = lowered.startsWith(words[0]) || unit.toLowerCase() === query.toLowerCase() ? 0 : lowered.includes(words[0]) ? 1 : 2;
    found.push({ score: score - fit, href: unitPage(data.layers[number], channel), name, about: evidence ? `${unit} · ${evidence}` : unit });
  }
  return found.sort((a, b) => a.score - b.score).slice(0, 40);
}

function search() {
  const field = $("#search"), results = $("#found");
  let found = [], chosen = 0;

  function choose(number) {
    chosen = number;
    [...results.children].forEach((item, at) => item.setAttribute("aria-selected", String(at === number)));
    const item = found.length ? results.children[number] : null;
    if (item) { item.scrollIntoView({ block: "nearest" }); field.setAttribute("aria-activedescendant", item.id); }
    else field.removeAttribute("aria-activedescendant");
  }

  function show(open) {
    results.hidden = !open;
    field.setAttribute("aria-expanded", String(open));
  }

  async function update() {
    const query = field.value.trim();
    let data;
    try { data = await loadList(); } catch (error) { results.replaceChildren(make("li", { role: "option" }, error.message)); return show(true); }
    if (query !== field.value.trim()) return;
    found = matches(data, query);
    results.replaceChildren(...found.map((one, at) =>
      make("li", { role: "option", id: `found-${at}`, onclick: () => { location.href = one.href; }, onpointermove: () => choose(at) },
        make("span", { class: "name" }, one.name), make("span", { class: "about" }, one.about))));
    if (query && !found.length) results.append(make("li", { role: "option", "aria-disabled": "true" }, make("span", { class: "about" }, "Nothing has this name or label")));
    choose(0);
    show(Boolean(query));
  }

  field.addEventListener("focus", () => { loadList().catch(() => {}); if (field.value) update(); });
  field.addEventListener("input", update);
  field.addEventListener("blur", () => setTimeout(() => show(false), 150));
  field.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      if (found.length) choose((chosen + (event.key === "ArrowDown" ? 1 : found.length - 1)) % found.length);
    } else if (event.key === "Enter" && found[chosen]) location.href = found[chosen].href;
    else if (event.key === "Escape") { field.value = ""; show(false); field.blur(); }
  });
}

/* ---- keyboard ---- */

function keyboard() {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input:not([type=checkbox]), select, textarea")) return;
    const viewing = $("#viewer").open;
    if (viewing) {
      if (event.key === "ArrowLeft" || event.key === "ArrowRight") step(event.key === "ArrowRight" ? 1 : -1);
      return;
    }
    if (event.key === "/") { event.preventDefault(); $("#search").focus(); }
    else if (event.key === "[" || event.key === "]") $(event.key === "[" ? "a[rel=prev]" : "a[rel=next]")?.click();
    else if (event.key.startsWith("Arrow")) walk(event);
  });
}

/** Move the focus among the tiles or cards of the page. */
function walk(event) {
  const items = $$(".tile, .card, .layer h2 a").filter((item) => item.offsetParent !== null);
  const at = items.indexOf(document.activeElement);
  const sideways = event.key === "ArrowLeft" || event.key === "ArrowRight";
  if (!items.length || (at < 0 && !sideways)) return;
  event.preventDefault();
  let to = 0;
  if (at >= 0 && sideways) to = at + (event.key === "ArrowRight" ? 1 : -1);
  else if (at >= 0) {
    const top = (item) => item.getBoundingClientRect().top, left = (item) => item.getBoundingClientRect().left;
    const columns = Math.max(1, items.findIndex((item) => top(item) > top(items[0]) + 4));
    to = at + (event.key === "ArrowDown" ? 1 : -1) * (left(items[Math.min(1, items.length - 1)]) > left(items[0]) + 4 ? columns : 1);
  }
  items[Math.max(0, Math.min(items.length - 1, to))].focus();
}

/* ---- a photograph with what is drawn over it ---- */

const NAMES = { receptive: "receptive field", effective: "effective field", tight: "tight crop" };
const hidden = new Set();
let viewed = null; // {tile, patch} or {file}, and the size of the photograph

function svg(tag, attributes) {
  const found = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) found.setAttribute(name, value);
  return found;
}

const rectangle = ([left, top, right, bottom], kind) => svg("rect", { x: left, y: top, width: right - left, height: bottom - top, class: kind });

function sized([width, height]) {
  viewed.size = [width, height];
  $("#viewer-boxes").setAttribute("viewBox", `0 0 ${width} ${height}`);
  $(".picture").style.setProperty("--ratio", width / height);
}

function openViewer(title) {
  $("#viewer-title").textContent = title;
  $("#viewer-facts").replaceChildren();
  $("#viewer-answer").replaceChildren();
  $("#viewer-boxes").replaceChildren();
  $("#viewer-map").hidden = true;
  if (!$("#viewer").open) $("#viewer").showModal();
}

function openPatch(tile) {
  const patch = JSON.parse(tile.dataset.patch);
  viewed = { tile, patch };
  openViewer(`#${patch.rank} · ${short(patch.value)}${patch.class ? ` · ${patch.class}` : ""}`);
  readdress(tile.getAttribute("href"));
  sized(patch.size);
  const image = $("#viewer-image");
  image.alt = patch.image;
  if (tile.dataset.photograph) image.src = tile.dataset.photograph;
  else image.removeAttribute("src");
  const draw = () => $("#viewer-boxes").replaceChildren(
    ...Object.keys(NAMES).filter((name) => patch.boxes[name] && !hidden.has(name)).map((name) => rectangle(patch.boxes[name], name)));
  const toggle = (name, words, checked, change) => make("label", {},
    make("input", { type: "checkbox", checked, onchange: (event) => change(event.target.checked) }),
    NAMES[name] ? make("span", { class: `key ${name}` }) : null, words);
  const facts = $("#viewer-facts");
  facts.append(make("p", { class: "about" }, `${patch.image} · position ${patch.position.join(",")}`));
  if (patch.proof) facts.append(make("p", {}, patch.proof));
  facts.append(make("div", { class: "legend" },
    ...Object.keys(NAMES).filter((name) => patch.boxes[name]).map((name) =>
      toggle(name, name === "receptive" && patch.place ? patch.place : NAMES[name], !hidden.has(name), (on) => { on ? hidden.delete(name) : hidden.add(name); draw(); })),
    live ? toggle("map", "activation map", false, showMap) : null));
  if (live) facts.append(
    make("p", { class: "hint" }, "Drag a box on the photograph: the nearest patches of the index."),
    make("p", {}, make("button", { type: "button", onclick: () => similar(patch.boxes.tight ?? patch.boxes.effective ?? patch.boxes.receptive) }, "Patches like this one")));
  draw();
}

function step(by) {
  if (!viewed?.tile) return;
  const tiles = $$(".tile");
  const next = tiles[tiles.indexOf(viewed.tile) + by];
  if (next) { openPatch(next); viewed.tile.focus({ preventScroll: true }); }
}

/** Darken the photograph where the unit does not respond. */
async function showMap(on) {
  const canvas = $("#viewer-map"), asking = viewed;
  canvas.hidden = true;
  if (!on) return;
  const unit = encodeURIComponent($(".unit").dataset.unit);
  let map;
  try { map = await asked(`/api/units/${unit}/map?image_id=${viewed.patch.image_id}`); } catch (error) { return answer(failed(error)); }
  if (asking !== viewed) return;
  const [rows, columns] = map.grid, most = Math.max(...map.values.flat(), 1e-9);
  const small = new ImageData(columns, rows);
  map.values.flat().forEach((value, at) => { small.data[4 * at + 3] = 185 * (1 - Math.max(0, value ?? 0) / most); });
  const grid = make("canvas", { width: columns, height: rows });
  grid.getContext("2d").putImageData(small, 0, 0);
  const scale = Math.min(1, 1280 / Math.max(...viewed.size));
  canvas.width = viewed.size[0] * scale;
  canvas.height = viewed.size[1] * scale;
  const context = canvas.getContext("2d"), { left, top, right, bottom } = map.box;
  context.fillStyle = "rgba(0, 0, 0, .73)";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.clearRect(left * scale, top * scale, (right - left) * scale, (bottom - top) * scale);
  context.imageSmoothingQuality = "high";
  context.drawImage(grid, left * scale, top * scale, (right - left) * scale, (bottom - top) * scale);
  canvas.hidden = false;
}

const failed = (error) => make("p", { class: "error", role: "alert" }, error.message);
const answer = (...children) => $("#viewer-answer").replaceChildren(...children);

/** A request about the photograph that is viewed: by its number, or with its bytes. */
function about(what, words, signal) {
  const query = new URLSearchParams(words);
  if (viewed.file) return asked(`/api/${what}?${query}`, { method: "POST", body: viewed.file, headers: { "content-type": "application/octet-stream" }, signal });
  query.set("image_id", viewed.patch.image_id);
  return asked(`/api/${what}?${query}`, { signal });
}

async function similar(box) {
  const asking = viewed;
  $$("#viewer-boxes .drag").forEach((drag) => drag.remove());
  $("#viewer-boxes").append(rectangle(box, "drag"));
  const place = viewed.file ? $("#viewer-like") : $("#viewer-answer");
  place.replaceChildren(make("p", { class: "hint" }, "Looking for the nearest patches …"));
  try {
    const found = await about("similar", { box: box.join(","), k: 16 });
    if (asking !== viewed) return;
    place.replaceChildren(make("h2", {}, `Nearest patches in ${found.query.layer}`), make("ul", { class: "like" }, ...found.patches.map((patch) =>
      make("li", {}, make("a", { href: `/units/${encodeURIComponent(patch.layer)}:${patch.channel}`, title: `${patch.name} · cosine ${patch.similarity.toFixed(2)}` },
        make("img", { src: `/crops/${encodeURIComponent(patch.layer)}/${patch.channel}/face/${patch.image_id}/${patch.position.y}/${patch.position.x}/192`,
          width: 96, height: 96, alt: `${patch.name}, cosine ${patch.similarity.toFixed(2)}` }))))));
  } catch (error) { if (asking === viewed) place.replaceChildren(failed(error)); }
}

function dragging() {
  const boxes = $("#viewer-boxes");
  let start = null, drawn = null;
  const at = (event) => {
    const frame = boxes.getBoundingClientRect(), [width, height] = viewed.size;
    const within = (share, side) => Math.round(Math.max(0, Math.min(1, share)) * side);
    return [within((event.clientX - frame.left) / frame.width, width), within((event.clientY - frame.top) / frame.height, height)];
  };
  const spanned = ([x, y], [left, top]) => [Math.min(x, left), Math.min(y, top), Math.max(x, left), Math.max(y, top)];
  boxes.addEventListener("pointerdown", (event) => {
    if (!viewed?.size) return;
    event.preventDefault();
    boxes.setPointerCapture(event.pointerId);
    start = at(event);
  });
  boxes.addEventListener("pointermove", (event) => {
    if (!start) return;
    drawn?.remove();
    boxes.append(drawn = rectangle(spanned(at(event), start), "drag"));
  });
  boxes.addEventListener("pointercancel", () => { drawn?.remove(); start = drawn = null; });
  boxes.addEventListener("pointerup", (event) => {
    if (!start) return;
    const box = spanned(at(event), start), least = Math.max(...viewed.size) / 100;
    drawn?.remove();
    start = drawn = null;
    if (box[2] - box[0] >= least && box[3] - box[1] >= least) similar(box);
  });
}

/* ---- a dropped photograph ---- */

async function openFile(file) {
  viewed = { file };
  openViewer("Your photograph");
  const image = $("#viewer-image"), address = URL.createObjectURL(file);
  image.alt = file.name;
  image.onload = () => { if (viewed.file === file) sized([image.naturalWidth, image.naturalHeight]); };
  image.src = address;
  viewed.address = address;
  const layer = make("select", { "aria-label": "Layer", onchange: () => fires(layer.value) }, make("option", { value: "" }, "all layers"));
  loadList().then((data) => layer.append(...data.layers.map((one) => make("option", { value: one.name }, one.name)))).catch(() => {});
  $("#viewer-facts").append(make("p", { class: "about" }, "The photograph is not kept."), make("label", { class: "about" }, "Units in ", layer),
    make("p", { class: "hint" }, "Point at a unit to see where it fires. Drag a box: the nearest patches of the index."), make("div", { id: "viewer-like" }));
  fires("");
}

async function fires(layer) {
  const asking = viewed, stopped = new AbortController();
  asking.stop?.abort();
  asking.stop = stopped;
  const words = make("span", { class: "about" }, "asking the network"), began = Date.now();
  answer(make("p", { class: "job" }, make("progress", { "aria-label": "Units that fire" }), words,
    make("button", { type: "button", onclick: () => stopped.abort() }, "Stop")));
  const clock = setInterval(() => { words.textContent = `asking the network, ${Math.round((Date.now() - began) / 1000)} s`; }, 1000);
  try {
    const found = await about("fires", { k: 40, ...(layer ? { layer } : {}) }, stopped.signal);
    if (asking !== viewed || asking.stop !== stopped) return;
    const point = (unit) => {
      $$("#viewer-boxes .hit").forEach((hit) => hit.remove());
      if (unit && viewed.size) $("#viewer-boxes").append(rectangle([unit.box.left, unit.box.top, unit.box.right, unit.box.bottom], "hit"));
    };
    answer(make("h2", {}, "Units that fire harder than on other photographs"), make("ol", { class: "fires" }, ...found.units.map((unit) =>
      make("li", { onpointerenter: () => point(unit), onpointerleave: () => point(null) },
        make("a", { href: `/units/${encodeURIComponent(unit.layer)}:${unit.channel}`, onfocus: () => point(unit), onblur: () => point(null) },
          make("span", {}, unit.name), make("span", { class: "number" }, short(unit.value)),
          make("span", { class: "about" }, `${unit.layer}:${unit.channel} · above ${(100 * unit.percentile).toFixed(1)} %`))))));
  } catch (error) {
    if (asking === viewed && asking.stop === stopped) answer(error.name === "AbortError" ? make("p", { class: "about" }, "Stopped. Choose a layer to ask again.") : failed(error));
  } finally { clearInterval(clock); }
}

function dropping() {
  const page = document.documentElement;
  const holdsFile = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  document.addEventListener("dragover", (event) => { if (holdsFile(event)) { event.preventDefault(); page.classList.add("dropping"); } });
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) page.classList.remove("dropping"); });
  document.addEventListener("drop", (event) => {
    page.classList.remove("dropping");
    if (!holdsFile(event)) return;
    event.preventDefault();
    if (event.dataTransfer.files[0]) openFile(event.dataTransfer.files[0]);
  });
  $("#file").addEventListener("change", (event) => { if (event.target.files[0]) openFile(event.target.files[0]); event.target.value = ""; });
}

function viewer() {
  const dialog = $("#viewer");
  $(".close", dialog).addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("close", () => {
    viewed?.stop?.abort();
    if (viewed?.address) URL.revokeObjectURL(viewed.address);
    if (viewed?.tile) { readdress(location.pathname + location.search); viewed.tile.focus(); }
    viewed = null;
  });
  document.addEventListener("click", (event) => {
    const tile = event.target.closest(".tile");
    if (!tile || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    openPatch(tile);
  });
  const openAddressed = () => {
    const tile = $$(".tile").find((tile) => tile.getAttribute("href") === location.hash);
    if (tile) openPatch(tile);
  };
  addEventListener("hashchange", openAddressed);
  openAddressed();
  if (live) { dragging(); dropping(); }
}

/* ---- a unit ---- */

/** Replace the patches by those of another address of this page. */
async function swap(address) {
  const answer_ = await fetch(address).catch(() => null);
  if (!answer_?.ok) { location.href = address; return; }
  const page = new DOMParser().parseFromString(await answer_.text(), "text/html");
  const focused = document.activeElement?.closest("[data-swap]")?.textContent;
  $("#patches").replaceWith($("#patches", page));
  $(".facts .histogram")?.replaceWith($(".facts .histogram", page));
  $("#command").textContent = $("#command", page).textContent;
  $$("[data-swap]").find((link) => link.textContent === focused)?.focus();
}

function unit() {
  if (!$(".unit")) return;
  document.addEventListener("click", async (event) => {
    const link = event.target.closest("[data-swap]");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    await swap(link.href);
    history.pushState(null, "", link.href);
  });
  addEventListener("popstate", () => swap(location.href));
  $("#copy").addEventListener("click", async (event) => {
    await navigator.clipboard?.writeText($("#command").textContent).then(() => { event.target.textContent = "Copied"; }, () => {
      getSelection().selectAllChildren($("#command"));
    });
  });
  const near = $("[data-nearest]");
  if (near) fetch(near.dataset.nearest).then((found) => found.text()).then((text) => {
    const section = $(".nearest", new DOMParser().parseFromString(text, "text/html"));
    section ? near.replaceWith(section) : near.remove();
  }).catch(() => near.remove());
  $$("[data-job]").forEach((button) => button.addEventListener("click", () => work(button)));
}

/** Start long work and show how far it is until it ends. */
async function work(button) {
  const query = new URLSearchParams({ kind: button.dataset.job, unit: $(".unit").dataset.unit });
  const bar = make("progress", { "aria-label": button.textContent }), words = make("span", { class: "about" });
  const stop = make("button", { type: "button" }, "Stop");
  const row = make("p", { class: "job" }, bar, words, stop);
  button.disabled = true;
  $("#jobs").append(row);
  try {
    let job = await asked(`/api/jobs?${query}`, { method: "POST" });
    stop.onclick = () => { stop.disabled = true; asked(`/api/jobs/${job.job}`, { method: "DELETE" }).catch(() => {}); };
    while (!["done", "failed", "stopped"].includes(job.state)) {
      if (job.total) { bar.max = job.total; bar.value = job.done; }
      words.textContent = job.total ? `${job.done} of ${job.total} ${job.what}` : job.state === "running" ? "starting" : job.state;
      await new Promise((resolve) => setTimeout(resolve, 400));
      job = await asked(`/api/jobs/${job.job}`);
    }
    if (job.state === "done") { location.reload(); return; }
    row.replaceChildren(make("span", { class: job.state === "failed" ? "error" : "about" }, job.message || "Stopped. What was found is kept."));
  } catch (error) { row.replaceChildren(failed(error)); }
  button.disabled = false;
}

/* ---- a layer ---- */

/** Sort the wall by a number of its units, and hide those beyond a bound; the address says both. */
function wall() {
  const holder = $("#wall");
  if (!holder) return;
  const items = [...holder.children], sort = $("#sort"), least = $("#least");
  const number = (item, key) => { const text = item.firstElementChild.getAttribute(`data-${key}`); return text === null ? null : Number(text); };
  const smallFirst = (key) => key === "channel" || key === "tight";

  function update() {
    const key = sort.value, ascending = smallFirst(key);
    const values = items.map((item) => number(item, key)).filter((value) => value !== null);
    const low = Math.min(...values), high = Math.max(...values), share = Number(least.value) / 1000;
    const bound = ascending ? high - share * (high - low) : low + share * (high - low);
    $("#bound").hidden = key === "channel";
    $("#bound-words").textContent = ascending ? "at most" : "at least";
    $("#least-shown").textContent = share ? short(bound) : "any";
    const inside = (value) => key === "channel" || !share || (value !== null && (ascending ? value <= bound : value >= bound));
    let shown = 0;
    for (const item of items) { item.hidden = !inside(number(item, key)); shown += !item.hidden; }
    const rank = (item) => { const value = number(item, key); return value === null ? Infinity : ascending ? value : -value; };
    holder.append(...[...items].sort((a, b) => rank(a) - rank(b) || number(a, "channel") - number(b, "channel")));
    $("#count").textContent = shown.toLocaleString("en-US");
    const query = new URLSearchParams({ ...(key === "channel" ? {} : { sort: key }), ...(share && key !== "channel" ? { least: least.value } : {}) }).toString();
    readdress(location.pathname + (query ? `?${query}` : ""));
  }

  const asked_ = new URLSearchParams(location.search);
  if ([...sort.options].some((option) => option.value === asked_.get("sort"))) sort.value = asked_.get("sort");
  if (/^\d{1,4}$/.test(asked_.get("least") ?? "")) least.value = asked_.get("least");
  sort.addEventListener("change", () => { least.value = 0; update(); });
  least.addEventListener("input", update);
  $("#tools").addEventListener("submit", (event) => event.preventDefault());
  if (location.search) update();
}

search();
keyboard();
viewer();
unit();
wall();
})();
