// Package script reads the scripts of mixed load. Their form is described at cmd/pitaya-load.
package script

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/pitaya-go/pitaya"
)

// A Script is what each user of a mixed load does.
type Script struct {
	Once   []Step   // after each connect
	Blocks []Block  // then again and again one of these; at least one
	Calls  []string // what is counted, each once, such as "request room.join"
	total  float64  // of the weights
}

// A Block is steps that belong together. It is chosen with a likelihood in proportion to its weight.
type Block struct {
	Name   string
	Weight float64
	Steps  []Step
}

// An Op is what a step does.
type Op string

// The steps.
const (
	Request    Op = "request"    // makes a request and waits for the answer
	Bind       Op = "bind"       // the same; if it fails the user connects again
	Notify     Op = "notify"     // sends a notify
	Wait       Op = "wait"       // waits for a push
	Sleep      Op = "sleep"      // waits for a time
	Think      Op = "think"      // waits for a time that varies
	Disconnect Op = "disconnect" // closes the connection; the user connects again
)

// A Step is one line of a script.
type Step struct {
	Op       Op
	Route    string        // Request, Bind, Notify, Wait
	Body     Text          // Request, Bind, Notify
	Min, Max time.Duration // Sleep and Think: how long, Max included; Wait: Max is the timeout, 0 for that of the run
	Call     int           // Request, Bind, Notify: index in Calls
	Line     int
}

// Limits.
const (
	maxLine   = 1 << 20
	maxSteps  = 10000
	maxFill   = 8 << 20
	maxBodies = 16 << 20
	maxSleep  = 24 * time.Hour
)

// Parse reads a script. Files that bodies come from are read from files, nil for none. The error lists all mistakes, with
// their lines.
func Parse(text []byte, files fs.FS) (*Script, error) {
	p := parser{script: new(Script), files: files}
	in := bufio.NewScanner(bytes.NewReader(text))
	in.Buffer(nil, maxLine)
	for in.Scan() {
		p.line++
		if err := p.parse(in.Text()); err != nil {
			p.errs = append(p.errs, fmt.Errorf("line %d: %w", p.line, err))
		}
		if len(p.errs) >= 20 || p.steps > maxSteps {
			break
		}
	}
	if err := in.Err(); err != nil {
		p.errs = append(p.errs, fmt.Errorf("line %d: %w", p.line+1, err))
	}
	if p.steps > maxSteps {
		p.errs = append(p.errs, fmt.Errorf("more than %d steps", maxSteps))
	}
	for _, b := range p.script.Blocks {
		p.script.total += b.Weight
		if len(b.Steps) == 0 {
			p.errs = append(p.errs, fmt.Errorf("block %s has no steps", b.Name))
		}
	}
	if len(p.errs) == 0 && (len(p.script.Blocks) == 0 || p.script.total <= 0) {
		p.errs = append(p.errs, errors.New("there is no block with a weight above 0"))
	}
	if len(p.errs) > 0 {
		return nil, errors.Join(p.errs...)
	}
	return p.script, nil
}

type parser struct {
	script *Script
	files  fs.FS
	line   int
	steps  int
	bodies int     // bytes read from files
	steps0 *[]Step // of the block in progress; nil before the first
	errs   []error
}

func (p *parser) parse(line string) error {
	if !utf8.ValidString(line) {
		return errors.New("not UTF-8")
	}
	text := strings.TrimSpace(line)
	if text == "" || text[0] == '#' {
		return nil
	}
	if line[0] != ' ' && line[0] != '\t' {
		return p.header(text)
	}
	if p.steps0 == nil {
		return errors.New("a step outside of a block")
	}
	p.steps++
	s, err := p.step(text)
	if err != nil {
		return err
	}
	*p.steps0 = append(*p.steps0, s)
	return nil
}

// header reads "once" or "NAME WEIGHT".
func (p *parser) header(text string) error {
	f := strings.Fields(text)
	ignored := new([]Step) // the steps of a bad block are still looked at
	p.steps0 = ignored
	if f[0] == "once" {
		if len(f) > 1 || p.script.Once != nil {
			return errors.New(`"once" stands alone, and once`)
		}
		p.script.Once = []Step{}
		p.steps0 = &p.script.Once
		return nil
	}
	if len(f) > 2 {
		return fmt.Errorf("a block begins with its name and its weight; steps are indented")
	}
	weight := 1.0
	if len(f) == 2 {
		var err error
		weight, err = strconv.ParseFloat(f[1], 64)
		if err != nil || !(weight >= 0 && weight <= 1e9) {
			return fmt.Errorf("weight %q: it is a number from 0 to 1e9", f[1])
		}
	}
	if slices.ContainsFunc(p.script.Blocks, func(b Block) bool { return b.Name == f[0] }) {
		return fmt.Errorf("block %s is there twice", f[0])
	}
	p.script.Blocks = append(p.script.Blocks, Block{Name: f[0], Weight: weight})
	p.steps0 = &p.script.Blocks[len(p.script.Blocks)-1].Steps
	return nil
}

// cut takes the first word off a text.
func cut(text string) (word, rest string) {
	if i := strings.IndexAny(text, " \t"); i >= 0 {
		return text[:i], strings.TrimSpace(text[i:])
	}
	return text, ""
}

func (p *parser) step(text string) (Step, error) {
	word, rest := cut(text)
	s := Step{Op: Op(word), Line: p.line}
	switch s.Op {
	case Request, Bind, Notify:
		var body string
		s.Route, body = cut(rest)
		if err := checkRoute(s.Route); err != nil {
			return s, err
		}
		var err error
		if s.Body, err = p.body(body); err != nil {
			return s, err
		}
		s.Call = p.call(word + " " + s.Route)
	case Wait:
		var timeout string
		s.Route, timeout = cut(rest)
		if err := checkRoute(s.Route); err != nil {
			return s, err
		}
		if timeout != "" {
			return s, duration(timeout, &s.Max)
		}
	case Sleep:
		if err := duration(rest, &s.Min); err != nil {
			return s, err
		}
		s.Max = s.Min
	case Think:
		least, most := cut(rest)
		if err := errors.Join(duration(least, &s.Min), duration(most, &s.Max)); err != nil {
			return s, err
		}
		if s.Max < s.Min {
			return s, errors.New("think: the second time is less than the first")
		}
	case Disconnect:
		if rest != "" {
			return s, errors.New("disconnect takes nothing")
		}
	default:
		return s, fmt.Errorf("there is no step %q", word)
	}
	return s, nil
}

func checkRoute(route string) error {
	if route == "" {
		return errors.New("a route is missing")
	}
	_, err := pitaya.AppendMessage(nil, pitaya.Message{Type: pitaya.MessageNotify, Route: route}, nil)
	return err
}

func duration(text string, d *time.Duration) (err error) {
	if *d, err = time.ParseDuration(text); err != nil {
		return fmt.Errorf("time %q: it is a number with a unit, like 200ms", text)
	}
	if *d < 0 || *d > maxSleep {
		return fmt.Errorf("time %s: from 0s to 24h are possible", text)
	}
	return nil
}

// call returns the number under which something is counted.
func (p *parser) call(label string) int {
	if i := slices.Index(p.script.Calls, label); i >= 0 {
		return i
	}
	p.script.Calls = append(p.script.Calls, label)
	return len(p.script.Calls) - 1
}

// body reads the text of a body, or the file that "@name" names.
func (p *parser) body(text string) (Text, error) {
	name, ok := strings.CutPrefix(text, "@")
	if !ok {
		return ParseText(text)
	}
	if p.files == nil {
		return nil, fmt.Errorf("body %s: no files here", text)
	}
	b, err := fs.ReadFile(p.files, filepath.ToSlash(name))
	if err != nil {
		return nil, fmt.Errorf("body: %w", err)
	}
	if p.bodies += len(b); p.bodies > maxBodies {
		return nil, fmt.Errorf("bodies of over %d bytes", maxBodies)
	}
	return Text{{literal: string(b)}}, nil
}

// Choose returns a block by the weights.
func (s *Script) Choose(r *rand.Rand) *Block {
	x := r.Float64() * s.total
	for i := range s.Blocks {
		if x -= s.Blocks[i].Weight; x < 0 {
			return &s.Blocks[i]
		}
	}
	// Rounding: the last one that can be chosen.
	for i := len(s.Blocks) - 1; i > 0; i-- {
		if s.Blocks[i].Weight > 0 {
			return &s.Blocks[i]
		}
	}
	return &s.Blocks[0]
}

// Pause returns how long a sleep or think lasts.
func (s *Step) Pause(r *rand.Rand) time.Duration {
	return s.Min + time.Duration(r.Float64()*float64(s.Max-s.Min))
}

// Text is a text with variables.
type Text []part

type part struct {
	literal string
	name    string // of a variable; empty for a literal
	a, b    int64  // of rand: the least and the greatest; of fill: a is the length
}

// ParseText reads a text with variables in double braces.
func ParseText(text string) (Text, error) {
	var t Text
	for text != "" {
		literal, rest, ok := strings.Cut(text, "{{")
		if literal != "" {
			t = append(t, part{literal: literal})
		}
		if !ok {
			break
		}
		inner, after, ok := strings.Cut(rest, "}}")
		if !ok {
			return nil, errors.New("{{ without }}")
		}
		v, err := variable(strings.Fields(inner))
		if err != nil {
			return nil, err
		}
		t = append(t, v)
		text = after
	}
	return t, nil
}

func variable(f []string) (part, error) {
	if len(f) == 0 {
		return part{}, errors.New("{{}} names no variable")
	}
	var n [2]int64
	for i, arg := range f[1:] {
		v, err := strconv.ParseInt(arg, 10, 64)
		if err != nil || i > 1 {
			return part{}, fmt.Errorf("{{%s}}: not understood", strings.Join(f, " "))
		}
		n[i] = v
	}
	v := part{name: f[0], a: n[0], b: n[1]}
	ok := false
	switch f[0] {
	case "conn", "n":
		ok = len(f) == 1
	case "rand":
		switch len(f) {
		case 1:
			v.a, v.b, ok = 0, math.MaxInt32, true
		case 2:
			v.a, v.b, ok = 0, n[0]-1, n[0] > 0
		case 3:
			ok = n[0] <= n[1] && n[0] > -1<<62 && n[1] < 1<<62
		}
	case "fill":
		ok = len(f) == 2 && n[0] >= 0 && n[0] <= maxFill
	default:
		return part{}, fmt.Errorf("there is no variable {{%s}}", f[0])
	}
	if !ok {
		return part{}, fmt.Errorf("{{%s}}: not understood", strings.Join(f, " "))
	}
	return v, nil
}

// Env is what variables stand for.
type Env struct {
	Conn int   // number of the connection, from 0
	N    int64 // how many steps the user has made before
	Rand *rand.Rand
}

// Append appends the text to dst.
func (t Text) Append(dst []byte, env *Env) []byte {
	for _, p := range t {
		switch p.name {
		case "":
			dst = append(dst, p.literal...)
		case "conn":
			dst = strconv.AppendInt(dst, int64(env.Conn), 10)
		case "n":
			dst = strconv.AppendInt(dst, env.N, 10)
		case "rand":
			dst = strconv.AppendInt(dst, p.a+env.Rand.Int64N(p.b-p.a+1), 10)
		case "fill":
			for range p.a {
				dst = append(dst, 'x')
			}
		}
	}
	return dst
}
