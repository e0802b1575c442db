"use strict";
// The only script of a page: it sorts tables, and makes a gallery one that can be filtered and marked. All text that it
// shows is set as text. It asks for nothing from anywhere; marks are kept by the browser, under the page's own key.
(() => {
  const make = (tag, properties = {}, children = []) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) {
      if (name === "text") element.textContent = value;
      else element.setAttribute(name, value);
    }
    element.append(...children);
    return element;
  };
  const words = new Intl.Collator(document.documentElement.lang || "en", { numeric: true });

  // --- tables ---

  const NUMBER = /^[<>≤≥~±\s]*([+\-−]?(?:\d[\d,]*\.?\d*|\.\d+)(?:e[+\-]?\d+)?|[+\-−]?(?:inf|∞))/i;
  const VERDICTS = ["bad", "open", "good"];
  // Of a cell: how it compares as a number, or null; "1.2 ± 0.3" is 1.2, "98 %" is 98, "< 0.001" a little less.
  const numberOf = (text) => {
    const found = NUMBER.exec(text);
    if (!found) return null;
    const plain = found[1].replace(/,/g, "").replace("−", "-").replace(/inf|∞/i, "Infinity");
    const value = Number(plain);
    return text.startsWith("<") ? value - Math.abs(value) * 1e-9 : value;
  };
  const cellOf = (row, column) => {
    const cell = row.cells[column];
    const text = cell.textContent.trim();
    const verdict = cell.querySelector(".verdict");
    const empty = text === "" || text === "–";
    return { text, empty, number: verdict ? VERDICTS.findIndex((kind) => verdict.classList.contains(kind)) : numberOf(text) };
  };
  const sortable = (table) => {
    const body = table.tBodies[0];
    const rows = [...body.rows];
    const heads = [...table.tHead.rows[0].cells];
    if (rows.length < 3) return; // seen at a glance
    heads.forEach((head, column) => {
      const cells = new Map(rows.map((row) => [row, cellOf(row, column)]));
      const filled = [...cells.values()].filter((cell) => !cell.empty);
      const numeric = filled.length > 0 && filled.every((cell) => cell.number !== null);
      const verdicts = rows.some((row) => row.cells[column].querySelector(".verdict"));
      // Largest numbers first, and whatever is worst; a second press turns it round, a third gives the first order back.
      const turns = numeric && !verdicts ? ["descending", "ascending", ""] : ["ascending", "descending", ""];
      const button = make("button", { type: "button", text: head.textContent, class: "sort" });
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const turn = turns[(turns.indexOf(head.getAttribute("aria-sort") || "") + 1) % turns.length];
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        if (turn) head.setAttribute("aria-sort", turn);
        const sign = turn === "descending" ? -1 : 1;
        const compare = (a, b) => {
          const [one, two] = [cells.get(a), cells.get(b)];
          if (one.empty || two.empty) return one.empty - two.empty; // what is not known comes last, either way
          const first = numeric ? Math.sign(one.number - two.number) || 0 : 0;
          return sign * (first || words.compare(one.text, two.text));
        };
        body.append(...(turn ? [...rows].sort(compare) : rows));
      });
    });
  };
  document.querySelectorAll("table.sortable").forEach(sortable);

  // --- galleries ---

  const option = (value, text) => make("option", { value, text });
  const choice = (all, values) => {
    const select = make("select", {}, [option("", all), ...values.map((value, i) => option(String(i + 1), value))]);
    return { select, value: () => values[select.value - 1] };
  };
  // A spreadsheet takes what begins so for a formula.
  const csvCell = (value) => {
    const text = /^[=+\-@\t]/.test(value) && !/^[+-]?\d+(\.\d+)?$/.test(value) ? "'" + value : value;
    return /[",;\r\n]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text;
  };

  const PAGE = 24; // cards that are seen before somebody asks for more; on paper all are
  const gallery = (place) => {
    const { id, of, score, marks, columns, cards } = JSON.parse(place.querySelector("script").textContent);
    const list = place.querySelector(".cards");
    const items = [...list.children];
    const bodies = items.map((item) => item.firstElementChild);
    const key = "jaxfair marks " + id;
    const given = cards.map((card) => card.mark);
    let held = [...given];
    let current = 0;
    let limit = PAGE;
    let refused = false;

    // What was kept: for each card the place of its mark, from 1; 0 where it was taken away.
    const read = () => {
      held = [...given];
      let text = null;
      try {
        text = localStorage.getItem(key);
      } catch {
        refused = true;
      }
      try {
        for (const [i, mark] of Object.entries(JSON.parse(text) || {})) {
          if (i in held && Number.isInteger(mark) && mark >= 0 && mark <= marks.length) held[i] = marks[mark - 1] || "";
        }
      } catch {
        // Not ours: no marks.
      }
    };
    const keep = () => {
      const changed = held.map((mark, i) => [i, marks.indexOf(mark) + 1]).filter(([i]) => held[i] !== given[i]);
      try {
        localStorage.setItem(key, JSON.stringify(Object.fromEntries(changed)));
      } catch {
        refused = true;
      }
    };

    const several = (name) => [...new Set(cards.map((card) => card[name]))];
    const byGroup = choice("all", several("group").sort(words.compare));
    const byLabel = choice("all", several("label").sort(words.compare));
    const byKind = choice("all", several("kind"));
    const byMark = choice("any or none", ["none", ...marks]);
    const least = make("input", { type: "number", step: "any", inputmode: "decimal" });
    const byScore = {
      [`largest ${score}`]: (a, b) => cards[b].score - cards[a].score,
      [`smallest ${score}`]: (a, b) => cards[a].score - cards[b].score,
    };
    const orders = {
      "as listed": () => 0,
      ...(score ? byScore : {}),
      [of]: (a, b) => words.compare(cards[a].row, cards[b].row),
      group: (a, b) => words.compare(cards[a].group, cards[b].group),
      "true class": (a, b) => words.compare(cards[a].label, cards[b].label),
      mark: (a, b) => (marks.indexOf(held[a]) + 1 || 99) - (marks.indexOf(held[b]) + 1 || 99),
    };
    const order = make("select", {}, Object.keys(orders).map((name) => option(name, name)));
    const save = make("button", { type: "button", text: "Save marks as CSV" });
    const says = make("p", { class: "says", role: "status", "aria-live": "polite" });
    const warns = make("p", { class: "warns", role: "alert" });
    const more = make("button", { type: "button", class: "more" });
    const keys = `On a card: arrow keys go to the next one, 1 to ${marks.length} mark it, 0 takes the mark away.`;
    const labelled = (text, control, i) => {
      control.id = `${id}-tool-${i}`;
      return make("span", {}, [make("label", { for: control.id, text }), control]);
    };
    const controls = {
      group: byGroup.select, "true class": byLabel.select, change: byKind.select, mark: byMark.select,
      ...(score ? { [`least ${score}`]: least } : {}), order,
    };
    const tools = make("div", { class: "tools", role: "group", "aria-label": "Filter, sort and save" }, [
      ...Object.entries(controls).map(([text, control], i) => labelled(text, control, i)), save,
    ]);
    list.before(tools, make("p", { class: "keys", text: keys }), warns, says);
    list.after(more);
    place.classList.add("live");

    // The cards that the filter lets through, in their order on the page; and those of them that are seen.
    const fitting = () => [...list.children].filter((item) => !item.hidden).map((item) => items.indexOf(item));
    const visual = () => fitting().slice(0, limit);
    const cut = () => {
      const rest = fitting();
      rest.forEach((i, rank) => items[i].classList.toggle("later", rank >= limit));
      const left = rest.length - limit;
      more.hidden = left <= 0;
      more.textContent = `Show ${Math.min(PAGE, left)} more of ${left}`;
    };
    const reveal = () => {
      const next = fitting()[limit];
      limit += PAGE;
      cut();
      if (next !== undefined) go(next);
    };
    const buttons = bodies.map((body, i) => {
      const made = marks.map((mark, m) => {
        const button = make("button", { type: "button" }, [make("kbd", { text: m + 1, "aria-hidden": "true" }), " " + mark]);
        button.addEventListener("click", () => {
          go(i, false);
          put(i, held[i] === mark ? "" : mark);
        });
        return button;
      });
      body.append(make("div", { class: "marking", role: "group", "aria-label": `mark ${of} ${cards[i].row}` }, made));
      return made;
    });

    const paint = (i) => {
      const there = bodies[i].querySelector(".mark");
      there.textContent = held[i] && "marked: " + held[i];
      bodies[i].classList.toggle("marked", held[i] !== "");
      buttons[i].forEach((button, m) => button.setAttribute("aria-pressed", String(held[i] === marks[m])));
    };
    const say = () => {
      const counts = marks.map((mark) => [held.filter((one) => one === mark).length, mark]).filter(([count]) => count);
      const total = held.filter((mark) => mark).length;
      const which = counts.map(([count, mark]) => `${count} ${mark}`).join(", ");
      const fits = fitting().length;
      const shown = fits === cards.length ? `${fits} cards.` : `${fits} of ${cards.length} cards fit the filter.`;
      says.textContent = `${shown} ${total} marked${which && ": " + which}.`;
      warns.textContent = refused ? "This browser keeps nothing for this page: save the marks before you close it." : "";
      save.disabled = total === 0;
    };
    // One card at a time is a stop of the tabulator, with its buttons.
    const go = (i, focus = true) => {
      current = i;
      bodies.forEach((body, j) => {
        body.tabIndex = j === i ? 0 : -1;
        buttons[j].forEach((button) => { button.tabIndex = j === i ? 0 : -1; });
      });
      if (focus) bodies[i].focus();
    };
    const put = (i, mark) => {
      held[i] = mark;
      paint(i);
      keep();
      say();
    };
    const filter = () => {
      const wanted = { group: byGroup.value(), label: byLabel.value(), kind: byKind.value() };
      const mark = byMark.value();
      // Shown is a score of two digits: whoever asks for 0.67 means two thirds as well.
      const low = least.value === "" ? -Infinity : Number(least.value);
      items.forEach((item, i) => {
        const fits = Object.entries(wanted).every(([name, value]) => value === undefined || cards[i][name] === value);
        const marked = mark === undefined || (held[i] || "none") === mark;
        item.hidden = !(fits && marked && !(cards[i].score + 0.005 < low));
      });
      cut();
      if (!visual().includes(current)) go(visual()[0] ?? current, false);
      say();
    };
    const sort = () => {
      const compare = orders[order.value];
      const sorted = items.map((_, i) => i).sort((a, b) => compare(a, b) || a - b);
      list.append(...sorted.map((i) => items[i]));
      cut();
      go(visual()[0] ?? current, false);
    };

    // The card below or above: the nearest one of the next line.
    const beside = (now, step) => {
      const at = (i) => items[i].getBoundingClientRect();
      const [here, line] = [at(now), visual()];
      const there = line.filter((i) => step * (at(i).top - here.top) > 1);
      if (!there.length) return now;
      const tops = there.map((i) => step * at(i).top);
      const next = there.filter((i) => step * at(i).top - Math.min(...tops) < 1);
      return next.reduce((a, b) => (Math.abs(at(b).left - here.left) < Math.abs(at(a).left - here.left) ? b : a));
    };
    list.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const line = visual();
      const rank = line.indexOf(current);
      const moves = {
        ArrowRight: () => line[rank + 1] ?? current,
        ArrowLeft: () => line[rank - 1] ?? current,
        ArrowDown: () => beside(current, 1),
        ArrowUp: () => beside(current, -1),
        Home: () => line[0],
        End: () => line[line.length - 1],
      };
      const digit = /^\d$/.test(event.key) ? Number(event.key) : -1;
      if (Object.hasOwn(moves, event.key)) go(moves[event.key]());
      else if (digit >= 0 && digit <= marks.length) put(current, digit ? marks[digit - 1] : "");
      else return;
      event.preventDefault();
    });
    list.addEventListener("focusin", (event) => {
      const i = bodies.findIndex((body) => body.contains(event.target));
      if (i >= 0 && i !== current) go(i, false);
    });
    [byGroup.select, byLabel.select, byKind.select, byMark.select].forEach((one) => one.addEventListener("change", filter));
    least.addEventListener("input", filter);
    order.addEventListener("change", sort);
    more.addEventListener("click", reveal);
    window.addEventListener("storage", (event) => {
      if (event.key !== key) return;
      read();
      items.forEach((_, i) => paint(i));
      say();
    });
    save.addEventListener("click", () => {
      const lines = held.flatMap((mark, i) => (mark ? [columns.map((name) => csvCell(String({ ...cards[i], mark }[name])))] : []));
      const text = [columns, ...lines].map((cells) => cells.join(",") + "\r\n").join("");
      const address = URL.createObjectURL(new Blob([text], { type: "text/csv;charset=utf-8" }));
      make("a", { href: address, download: "marks.csv" }).click();
      setTimeout(() => URL.revokeObjectURL(address), 10000);
    });

    read();
    if (!refused) keep();
    items.forEach((_, i) => paint(i));
    go(0, false);
    cut();
    say();
  };
  document.querySelectorAll(".gallery").forEach(gallery);
})();
