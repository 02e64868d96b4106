// Package drawing makes drawings of boxes and arrows, as SVG that can be read on light and on dark pages and needs no fonts of
// its own. The one that it holds is that of docs/architecture.md; its test compares the file, and writes it when told to.
package drawing

//go:generate go test -run ^TestArchitecture$ -update .

import (
	"fmt"
	"html"
	"slices"
	"strings"
)

// A Drawing is what there is to see, in units that are pixels at full size.
type Drawing struct {
	Width, Height int
	Title         string // what it shows, for those who cannot see it
	Frames        []Box  // behind all else; only their titles are written
	Boxes         []Box
	Arrows        []Arrow
	Notes         []Note
}

// A Box is a part of the program.
type Box struct {
	X, Y, W, H int
	Class      string // "": the library's; "app": the application's; "out": what is outside of the process; "frame"
	Title      string
	Lines      []string // what it does
	Files      []string // where, without ".go"
}

// An Arrow goes through its points, and ends with a tip at the last of them.
type Arrow struct {
	Class  string // what it carries: "call", "answer", "push" or "news"
	Points []Point
	Label  string
	At     Point  // of the label
	Anchor string // of the label: "start", which is meant by "", "middle" or "end"
}

// A Note is a line of text.
type Note struct {
	At   Point
	Text string
}

// A Point is a place.
type Point struct{ X, Y int }

// style has the colours of light pages, and those that take their place on dark ones.
const style = `
  svg { --page: #ffffff; --frame: #f4f5f7; --box: #ffffff; --app: #fff3d6; --out: #e9edf3; --line: #8a94a3; --text: #1c2430;
    --dim: #55606f; --call: #1f6feb; --answer: #1a7f37; --push: #bc4c00; --news: #7d8794; }
  @media (prefers-color-scheme: dark) {
    svg { --page: #0d1117; --frame: #161b22; --box: #21262d; --app: #3a2f12; --out: #2b323c; --line: #6e7681; --text: #e6edf3;
      --dim: #9da7b3; --call: #6cb0ff; --answer: #56d364; --push: #ffa657; --news: #8b949e; }
  }
  text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; font-size: 12px; fill: var(--text); }
  .title { font-size: 13.5px; font-weight: 600; }
  .file { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: 10.5px; fill: var(--dim); }
  .page { fill: var(--page); }
  rect.frame { fill: var(--frame); stroke: var(--line); stroke-dasharray: 5 4; }
  rect.box { fill: var(--box); stroke: var(--line); }
  rect.app { fill: var(--app); stroke: var(--line); }
  rect.out { fill: var(--out); stroke: var(--line); }
  .label { font-size: 11.5px; paint-order: stroke; stroke: var(--frame); stroke-width: 5px; stroke-linejoin: round; }
  .arrow { fill: none; stroke-width: 2; }
  .call { stroke: var(--call); } .answer { stroke: var(--answer); } .push { stroke: var(--push); stroke-dasharray: 7 4; }
  .news { stroke: var(--news); stroke-width: 1.5; stroke-dasharray: 2 4; }
  .call-tip { fill: var(--call); } .answer-tip { fill: var(--answer); } .push-tip { fill: var(--push); } .news-tip { fill: var(--news); }
`

// SVG returns the drawing as a file.
func (d *Drawing) SVG() []byte {
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%[1]d" height="%d" role="img">`+"\n", d.Width, d.Height, d.Height)
	fmt.Fprintf(&b, "<title>%s</title>\n<style>%s</style>\n<defs>\n", html.EscapeString(d.Title), style)
	for _, class := range d.classes() {
		fmt.Fprintf(&b, `<marker id="%s-tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8" orient="auto" markerUnits="userSpaceOnUse">`+
			`<path class="%[1]s-tip" d="M0 0 10 5 0 10z"/></marker>`+"\n", class)
	}
	fmt.Fprintf(&b, "</defs>\n"+`<rect class="page" width="%d" height="%d" rx="8"/>`+"\n", d.Width, d.Height)
	for _, f := range d.Frames {
		rect(&b, f, "frame")
		text(&b, "title", "", Point{f.X + 14, f.Y + 22}, f.Title)
	}
	for _, a := range d.Arrows {
		var path []string
		for _, p := range a.Points {
			path = append(path, fmt.Sprintf("%d %d", p.X, p.Y))
		}
		fmt.Fprintf(&b, `<path class="arrow %s" marker-end="url(#%[1]s-tip)" d="M%s"/>`+"\n", a.Class, strings.Join(path, " "))
	}
	for _, box := range d.Boxes {
		class := box.Class
		if class == "" {
			class = "box"
		}
		rect(&b, box, class)
		lines := 1 + len(box.Lines) + len(box.Files)
		at := Point{box.X + box.W/2, box.Y + box.H/2 - lineHeight*lines/2 + 12}
		text(&b, "title", "middle", at, box.Title)
		for _, line := range box.Lines {
			at.Y += lineHeight
			text(&b, "", "middle", at, line)
		}
		for _, file := range box.Files {
			at.Y += lineHeight
			text(&b, "file", "middle", at, file)
		}
	}
	for _, a := range d.Arrows { // in front of the boxes
		if a.Label != "" {
			text(&b, "label", a.Anchor, a.At, a.Label)
		}
	}
	for _, n := range d.Notes {
		text(&b, "", "", n.At, n.Text)
	}
	b.WriteString("</svg>\n")
	return []byte(b.String())
}

const lineHeight = 15

// classes returns those of the arrows, in order.
func (d *Drawing) classes() (list []string) {
	for _, a := range d.Arrows {
		if !slices.Contains(list, a.Class) {
			list = append(list, a.Class)
		}
	}
	slices.Sort(list)
	return list
}

func rect(b *strings.Builder, box Box, class string) {
	fmt.Fprintf(b, `<rect class="%s" x="%d" y="%d" width="%d" height="%d" rx="6"/>`+"\n", class, box.X, box.Y, box.W, box.H)
}

func text(b *strings.Builder, class, anchor string, at Point, s string) {
	fmt.Fprintf(b, `<text x="%d" y="%d"`, at.X, at.Y)
	if class != "" {
		fmt.Fprintf(b, ` class="%s"`, class)
	}
	if anchor != "" && anchor != "start" {
		fmt.Fprintf(b, ` text-anchor="%s"`, anchor)
	}
	fmt.Fprintf(b, ">%s</text>\n", html.EscapeString(s))
}
