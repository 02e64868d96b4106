package drawing

import (
	"bytes"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the drawing of docs/architecture.md")

// root is the folder that the files of the drawing are in.
const root = "../.."

// TestArchitecture compares the drawing with the file that the document shows.
func TestArchitecture(t *testing.T) {
	name := filepath.Join(root, "docs", "architecture.svg")
	want := Architecture().SVG()
	if *update {
		if err := os.WriteFile(name, want, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("docs/architecture.svg is not what the package draws: go generate ./internal/drawing")
	}
}

// TestSVG reads the drawing as what it claims to be.
func TestSVG(t *testing.T) {
	d := xml.NewDecoder(bytes.NewReader(Architecture().SVG()))
	for {
		_, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	small := Drawing{Width: 10, Height: 10, Title: `<"&`, Boxes: []Box{{Title: "a < b"}}}
	if got := string(small.SVG()); !strings.Contains(got, "<title>&lt;&#34;&amp;</title>") || !strings.Contains(got, "a &lt; b") {
		t.Errorf("text is not escaped: %s", got)
	}
}

// TestFiles: the files that the drawing names are there.
func TestFiles(t *testing.T) {
	for _, box := range Architecture().Boxes {
		for _, line := range box.Files {
			for name := range strings.SplitSeq(line, ", ") {
				if found, err := filepath.Glob(filepath.Join(root, name+".go")); err != nil || len(found) == 0 {
					t.Errorf("%s: there is no %s.go (%v)", box.Title, name, err)
				}
			}
		}
	}
}

// TestPlaces: nothing lies on anything else, or outside.
func TestPlaces(t *testing.T) {
	d := Architecture()
	for i, a := range d.Boxes {
		if a.X < 0 || a.Y < 0 || a.X+a.W > d.Width || a.Y+a.H > d.Height {
			t.Errorf("%s is outside", a.Title)
		}
		for _, b := range d.Boxes[:i] {
			if a.X < b.X+b.W && b.X < a.X+a.W && a.Y < b.Y+b.H && b.Y < a.Y+a.H {
				t.Errorf("%s lies on %s", a.Title, b.Title)
			}
		}
		for _, arrow := range d.Arrows {
			for k, p := range arrow.Points[1:] {
				from := arrow.Points[k]
				if p.X != from.X && p.Y != from.Y {
					t.Errorf("an arrow is askew from %v to %v", from, p)
				}
				if max(p.X, from.X) > a.X && min(p.X, from.X) < a.X+a.W && max(p.Y, from.Y) > a.Y && min(p.Y, from.Y) < a.Y+a.H {
					t.Errorf("the arrow from %v to %v runs through %s", from, p, a.Title)
				}
			}
		}
	}
}

// TestTexts: as far as can be told without a font, texts have room in their boxes.
func TestTexts(t *testing.T) {
	for _, box := range Architecture().Boxes {
		for width, lines := range map[float64][]string{7.9: {box.Title}, 6.7: box.Lines, 6.4: box.Files} { // of a letter
			for _, line := range lines {
				if float64(len(line))*width > float64(box.W)-2 {
					t.Errorf("%s: no room for %q", box.Title, line)
				}
			}
		}
		if lines := 1 + len(box.Lines) + len(box.Files); lines*lineHeight > box.H {
			t.Errorf("%s: no room for %d lines", box.Title, lines)
		}
	}
}
