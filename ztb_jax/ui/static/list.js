"use strict";
// The list of runs: filtered and sorted here, and looked at again every two seconds.
(() => {
  const EVERY = 2000; // milliseconds
  const body = document.getElementById("rows");
  const form = document.getElementById("filter");
  const compare = document.getElementById("compare");
  const shown = document.getElementById("shown");
  const kept = new Map(); // run -> its row as the server made it
  const titles = [...document.querySelectorAll("th[data-field]")];
  let field = form.elements.sort.value;
  let descending = true;

  function key(row) {
    const cell = row.querySelector(`.c-${field}`);
    return cell.dataset.value ?? cell.textContent.replace("–", "").trim();
  }

  function order(a, b) {
    const [left, right] = [key(a), key(b)];
    if (left === "" || right === "") return (left === "") - (right === "");
    const by = isNaN(left) || isNaN(right) ? left.localeCompare(right) : left - right;
    return descending ? -by : by;
  }

  function sort() {
    body.append(...[...body.rows].sort(order));
    for (const title of titles) {
      if (title.dataset.field === field) title.ariaSort = descending ? "descending" : "ascending";
      else title.removeAttribute("aria-sort");
    }
  }

  function filter() {
    const [status, text] = [form.elements.status.value, form.elements.q.value.trim().toLowerCase()];
    let count = 0;
    for (const row of body.rows) {
      const out = (status && row.dataset.status !== status) || (text && !row.textContent.toLowerCase().includes(text));
      row.hidden = Boolean(out);
      count += !out;
    }
    shown.textContent = count === body.rows.length ? "" : `${count.toLocaleString("en")} shown`;
    document.getElementById("nothing").hidden = count > 0 || body.rows.length === 0;
  }

  function picked() {
    const count = body.querySelectorAll("input:checked").length;
    compare.disabled = count < 2 || count > 8;
    compare.textContent = count > 1 ? `Compare ${count}` : "Compare";
  }

  function keep() {
    for (const row of body.rows) {
      const out = row.hidden;
      row.hidden = false;
      kept.set(row.dataset.run, row.outerHTML);
      row.hidden = out;
    }
  }

  function renew(page) {
    const present = new Set();
    let changed = false;
    for (const row of page.querySelectorAll("#rows tr")) {
      const name = row.dataset.run;
      present.add(name);
      const text = row.outerHTML;
      if (kept.get(name) === text) continue;
      kept.set(name, text);
      changed = true;
      const old = body.querySelector(`tr[data-run="${CSS.escape(name)}"]`);
      row.querySelector("input").checked = old?.querySelector("input").checked ?? false;
      if (old === null) body.append(row);
      else if (!old.contains(document.activeElement)) old.replaceWith(row);
      else kept.delete(name); // it is being used: next time
    }
    for (const row of [...body.rows]) {
      if (present.has(row.dataset.run)) continue;
      kept.delete(row.dataset.run);
      row.remove();
      changed = true;
    }
    document.getElementById("count").replaceWith(page.getElementById("count"));
    document.getElementById("empty").hidden = present.size > 0;
    return changed;
  }

  async function look() {
    try {
      const page = document.hidden ? null : await live.fetched("/");
      document.getElementById("alert").hidden = true;
      if (page !== null && renew(page)) {
        sort();
        filter();
        picked();
      }
    } catch {
      const place = document.getElementById("alert");
      place.textContent = "The server does not answer: what is shown may be old.";
      place.hidden = false;
    }
    setTimeout(look, EVERY);
  }

  for (const title of titles) {
    title.firstElementChild.addEventListener("click", (event) => {
      event.preventDefault();
      descending = field === title.dataset.field ? !descending : true;
      field = title.dataset.field;
      form.elements.sort.value = field;
      sort();
    });
  }
  form.addEventListener("input", () => {
    if (form.elements.sort.value !== field) {
      field = form.elements.sort.value;
      sort();
    }
    filter();
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  body.addEventListener("change", picked);
  if (form.elements.q.value || form.elements.status.value) filter();
  picked();
  setTimeout(() => {
    keep();
    look();
  }, 300);
})();
