"use strict";
// Curves of runs on one axis, out of what the page brings with it.
(() => {
  const { curves } = JSON.parse(document.getElementById("found").textContent);
  const chooser = document.getElementById("column");
  const names = [...new Set(curves.flatMap(({ columns }) => Object.keys(columns)))].sort();

  function show() {
    ztb.curves(document.getElementById("chart-chosen"), () =>
      curves.map(({ run_id, columns }) => {
        const windows = columns.window_id ?? [];
        const missing = windows.map(() => null);
        return { name: run_id, x: columns.env_steps_end ?? windows, y: columns[chooser.value] ?? missing, windows };
      }),
    );
  }

  if (names.length === 0) return;
  ztb.choices(chooser, names, "validation_log_growth");
  chooser.addEventListener("change", show);
  show();
})();
