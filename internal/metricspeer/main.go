// Command metricspeer reads expositions of metrics in tests, with the code that Prometheus reads them with. Each line of
// its standard input is an exposition as JSON, and it answers each with a line. It ends with its standard input.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"strconv"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/textparse"
)

// An exposition is what a scrape has given.
type exposition struct {
	ContentType string
	Body        []byte
}

// A result is what was read.
type result struct {
	Error    string            `json:",omitempty"` // what is wrong with it
	Types    map[string]string // of each metric
	Units    map[string]string
	Help     map[string]string
	Samples  []sample
	Families int // as expfmt counts them; 0 for OpenMetrics, which it cannot read
}

// A sample is a line with a value. Labels has the name of the line as __name__.
type sample struct {
	Labels map[string]string
	Value  string // as strconv writes it: JSON has no NaN
}

func main() {
	log.SetFlags(0)
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var e exposition
		if err := in.Decode(&e); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			log.Fatal("metricspeer: ", err)
		}
		r := result{Types: make(map[string]string), Units: make(map[string]string), Help: make(map[string]string)}
		if err := r.read(e); err != nil {
			r.Error = err.Error()
		}
		if err := out.Encode(r); err != nil {
			log.Fatal("metricspeer: ", err)
		}
	}
}

// read parses an exposition as its content type says. Beyond what the parsers refuse, nothing may be there twice.
func (r *result) read(e exposition) error {
	symbols := labels.NewSymbolTable()
	p, err := textparse.New(e.Body, e.ContentType, symbols, textparse.ParserOptions{})
	if err != nil {
		return err
	}
	if _, open := p.(*textparse.OpenMetricsParser); !open {
		// Prometheus itself overlooks what expfmt refuses, such as lines of a metric that do not stand together.
		parser := expfmt.NewTextParser(model.LegacyValidation)
		families, err := parser.TextToMetricFamilies(bytes.NewReader(e.Body))
		if err != nil {
			return fmt.Errorf("expfmt: %w", err)
		}
		r.Families = len(families)
	}
	seen := make(map[string]bool)
	put := func(m map[string]string, name, value []byte) error {
		if _, ok := m[string(name)]; ok {
			return fmt.Errorf("metric %s is declared twice", name)
		}
		m[string(name)] = string(value)
		return nil
	}
	for {
		entry, err := p.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		switch entry {
		case textparse.EntryType:
			name, typ := p.Type()
			err = put(r.Types, name, []byte(typ))
		case textparse.EntryUnit:
			name, unit := p.Unit()
			err = put(r.Units, name, unit)
		case textparse.EntryHelp:
			name, help := p.Help()
			err = put(r.Help, name, help)
		case textparse.EntrySeries:
			_, _, value := p.Series()
			var l labels.Labels
			p.Labels(&l)
			if name, twice := l.HasDuplicateLabelNames(); twice {
				return fmt.Errorf("%s has the label %s twice", l, name)
			}
			if seen[l.String()] {
				return fmt.Errorf("%s is there twice", l)
			}
			seen[l.String()] = true
			r.Samples = append(r.Samples, sample{l.Map(), strconv.FormatFloat(value, 'g', -1, 64)})
		default:
			return fmt.Errorf("an entry of kind %d", entry)
		}
		if err != nil {
			return err
		}
	}
}
