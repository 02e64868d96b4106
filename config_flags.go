package pitaya

import (
	"flag"
	"fmt"
)

// Bind declares every setting as a flag of fs, under each of its names, so that parsing the flags, [ReadConfig] and
// [ReadEnv] fill c. They may be called in any order: flags go before the environment, that before files, and these
// before what is in the fields of c now. c must stay where it is until they are done. Most programs call
// [Config.Load], which does all of it.
//
// Bind sets fs.Usage to a function that prints the flags of the program first and leaves the other names of settings
// out; a program that wants another sets it afterwards. Binding a second Config to the same fs panics, as declaring any
// flag twice does.
func (c *Config) Bind(fs *flag.FlagSet) {
	c.record()
	b := &configBinding{
		config: c,
		names:  make(map[string]*boundKey),
		groups: make(map[string]bool),
		env:    make(map[string]*boundKey),
		flags:  make(map[string]string),
	}
	scratch := make(map[string]configKey)
	for k := range new(Config).keys() {
		scratch[k.name] = k
	}
	for k := range c.keys() {
		bk := &boundKey{configKey: k, scratch: scratch[k.name].value}
		b.keys = append(b.keys, bk)
		for i, name := range append([]string{k.name}, k.aliases...) {
			b.declare(fs, bk, name, i > 0)
		}
	}
	fs.Usage = func() { printUsage(fs) }
}

// printUsage prints the flags of fs: first those of the program, then the settings, each under its own name.
func printUsage(fs *flag.FlagSet) {
	w := fs.Output()
	if fs.Name() == "" {
		fmt.Fprintln(w, "Usage:")
	} else {
		fmt.Fprintf(w, "Usage of %s:\n", fs.Name())
	}
	own := flag.NewFlagSet("", flag.ContinueOnError)
	own.SetOutput(w)
	fs.VisitAll(func(f *flag.Flag) {
		if _, ok := f.Value.(*configFlag); !ok {
			own.Var(f.Value, f.Name, f.Usage)
			own.Lookup(f.Name).DefValue = f.DefValue // Var has taken the present value
		}
	})
	own.PrintDefaults()
	fmt.Fprintln(w, "\nSettings, which a JSON file and PITAYA_… variables can set as well:")
	fs.VisitAll(func(f *flag.Flag) {
		if v, ok := f.Value.(*configFlag); ok && !v.alias {
			fmt.Fprintf(w, "  -%s %s\n    \t%s", f.Name, v.k.value.kind(), f.Usage)
			if f.DefValue != "" {
				fmt.Fprintf(w, " (default %s)", f.DefValue)
			}
			if v.k.unused {
				fmt.Fprint(w, ", no effect in this version")
			}
			fmt.Fprintln(w)
		}
	})
}
