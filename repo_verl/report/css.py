"""The page's style sheet: one column on a phone, two on a screen, light and dark by the reader's setting."""

CSS = """
:root { color-scheme: light dark; --page: #f3f5f7; --card: #ffffff; --text: #1f2328; --soft: #57606a; --line: #d8dee4;
  --warn: #fff8e1; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 1160px; margin: 0 auto; padding: 20px 24px 40px; }
h1 { font-size: 24px; line-height: 1.25; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 18px; line-height: 1.3; margin: 36px 0 12px; }
h3 { font-size: 16px; line-height: 1.3; margin: 0; }
p { margin: 0 0 8px; }
.soft, figcaption { color: var(--soft); }
.box { background: var(--card); border: 1px solid var(--line); border-radius: 10px; overflow: hidden; }
.whole { white-space: nowrap; }
.scroll { overflow-x: auto; }
header + .box, .notes { margin: 14px 0; }
table { border-collapse: collapse; width: 100%; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { padding: 8px 10px; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
thead th { font-weight: 600; color: var(--soft); vertical-align: bottom; white-space: normal; }
th:first-child { padding-left: 14px; position: sticky; left: 0; background: var(--card);
  min-width: 84px; max-width: 180px; overflow-wrap: break-word; white-space: normal; }
th:first-child, .text th, .text td { text-align: left; }
.text td { white-space: normal; overflow-wrap: anywhere; min-width: 110px; vertical-align: top; }
.text th:first-child { max-width: none; }
.text td:last-child { min-width: 170px; }
.below { overflow-wrap: anywhere; }
.text tbody th { font-weight: 400; vertical-align: top; }
.below { color: var(--soft); font-size: 13px; margin: 0; padding: 9px 14px 10px; }
.notes { padding: 10px 14px 10px 32px; background: var(--warn); overflow-wrap: anywhere; }
.charts { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 20px; }
figure { margin: 0; padding: 16px 18px; display: grid; grid-template-columns: minmax(0, 1fr); gap: 10px;
  grid-row: span 4; grid-template-rows: subgrid; align-content: start; min-width: 0; }
.found { margin: 0; padding: 0; list-style: none; font-size: 14px; overflow-wrap: anywhere; }
figcaption { font-size: 13.5px; }
.missing { align-self: center; color: var(--soft); padding: 24px 0; margin: 0; }
svg { display: block; width: 100%; height: auto; overflow: hidden; }
svg * { stroke-linejoin: round; stroke-linecap: butt; }
svg text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif !important; }
.dark { display: none; }
details { margin: 12px 0; }
summary { cursor: pointer; padding: 12px 14px; font-weight: 600; }
details h3 { padding: 8px 14px 0; }
details .scroll { margin: 0 0 10px; }
code { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: 13px; }
@media (prefers-color-scheme: dark) {
  :root { --page: #111418; --card: #1b1f24; --text: #e6edf3; --soft: #9da7b3; --line: #343b44; --warn: #332b12; }
  .light { display: none; }
  .dark { display: block; }
}
@media (max-width: 760px) {
  main { padding: 14px 10px 28px; }
  .charts { grid-template-columns: minmax(0, 1fr); gap: 12px; }
  figure { padding: 12px; }
  .text th:first-child { position: static; max-width: 150px; }
}
"""
