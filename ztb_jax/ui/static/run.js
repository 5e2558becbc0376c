"use strict";
// One run: its curves as they grow, and what the server tells anew whenever its metadata changed.
(() => {
  const main = document.getElementById("run");
  const address = `/api/runs/${encodeURIComponent(main.dataset.run)}`;
  const chooser = document.getElementById("column");
  const MOST = 4000; // points drawn of a curve
  const APART = 700; // milliseconds between refreshes
  const rows = [];
  const fixed = new Set(["run_id", "window_complete"]);
  const columns = new Set();
  let drawing = false;
  let waiting = null;

  function add(row) {
    rows.push(row);
    for (const name of Object.keys(row)) if (typeof row[name] === "number" && !fixed.has(name)) columns.add(name);
  }

  function curve(name) {
    const step = Math.ceil(rows.length / MOST);
    const some = rows.filter((_, number) => number % step === 0 || number === rows.length - 1);
    return {
      name,
      x: some.map((row) => row.env_steps_end ?? row.window_id),
      y: some.map((row) => (typeof row[name] === "number" ? row[name] : null)),
      windows: some.map((row) => row.window_id),
    };
  }

  function best() {
    const found = rows.find((row) => row.window_id === rows.at(-1)?.best_window);
    return found === undefined ? [] : [found.env_steps_end ?? found.window_id];
  }

  function show() {
    if (drawing) return;
    drawing = true;
    requestAnimationFrame(() => {
      drawing = false;
      document.getElementById("curves").hidden = rows.length === 0;
      const none = document.getElementById("no-curves");
      none.textContent = "There is no window yet.";
      none.hidden = rows.length > 0;
      if (rows.length === 0) return;
      ztb.choices(chooser, [...columns].sort(), columns.has("entropy_mean") ? "entropy_mean" : "steps_per_second");
      const drawn = { reward: "reward_mean", validation: "validation_log_growth", chosen: chooser.value };
      for (const [place, name] of Object.entries(drawn)) {
        const marked = place === "validation" ? best : undefined;
        ztb.curves(document.getElementById(`chart-${place}`), () => [curve(name)], marked);
      }
    });
  }

  function filter() {
    const text = document.getElementById("replay-filter")?.value.trim().toLowerCase() ?? "";
    for (const row of document.querySelectorAll("#replays tbody tr")) {
      row.hidden = !row.textContent.toLowerCase().includes(text);
    }
  }

  function refresh() {
    waiting ??= setTimeout(async () => {
      waiting = null;
      try {
        await live.refresh();
        filter();
      } catch (error) {
        ztb.complain(`The server does not answer: ${error.message}`);
      }
    }, APART);
  }

  function follow() {
    const last = rows.at(-1)?.window_id ?? -1;
    const events = new EventSource(`${address}/events?after=${last}`);
    events.addEventListener("open", () => ztb.complain(""));
    events.addEventListener("error", () => ztb.complain("The connection is lost: trying again."));
    events.addEventListener("metadata", refresh);
    events.addEventListener("window", (event) => {
      const row = JSON.parse(event.data);
      if (row.window_id <= (rows.at(-1)?.window_id ?? -1)) return;
      add(row);
      show();
    });
    events.addEventListener("problem", (event) => {
      events.close();
      ztb.complain(JSON.parse(event.data).detail);
    });
    events.addEventListener("end", () => {
      events.close();
      refresh();
    });
  }

  async function start() {
    try {
      const told = await ztb.json(`${address}/metrics/windows?order=asc&limit=100000`);
      told.rows.forEach(add);
      show();
      if (main.dataset.status === "running") follow();
    } catch (error) {
      ztb.complain(error.message);
    }
  }

  chooser.addEventListener("change", show);
  document.getElementById("replay-filter")?.addEventListener("input", filter);
  start();
})();
