// Package htmltext makes pages of templates in which values stand in text and in quoted attributes, and nowhere else. For
// those places it writes what html/template would write.
//
// It takes the place of html/template, which understands all of HTML, CSS and JavaScript, and whose initialization alone is a
// quarter of a megabyte of every program that contains a server, also of those that never show a page: a package's
// initialization is linked with the package.
package htmltext

import (
	"fmt"
	"strings"
	"text/template"
	"text/template/parse"
)

// escape is the function that the output of each action goes through.
const escape = "_htmltext_escape"

// New returns the template of that name and text. Values are escaped. It returns an error where a value stands that cannot be
// made harmless by that: in a tag but not in a quoted attribute, in a style sheet or a script, in a comment, in an attribute
// that is code or a style, or as the beginning of an address, which may be one of code (javascript:).
func New(name, text string, funcs template.FuncMap) (*template.Template, error) {
	if err := check(text); err != nil {
		return nil, fmt.Errorf("htmltext: %s: %w", name, err)
	}
	t, err := template.New(name).Funcs(funcs).Funcs(template.FuncMap{escape: escapeValue}).Parse(text)
	if err != nil {
		return nil, err
	}
	for _, t := range t.Templates() {
		escapeList(t.Root)
	}
	return t, nil
}

// escapeValue returns a value as text that can stand between tags and between quotes.
func escapeValue(v any) string {
	return strings.NewReplacer("\x00", "\uFFFD", `"`, "&#34;", "&", "&amp;", "'", "&#39;", "+", "&#43;", "<", "&lt;", ">", "&gt;").
		Replace(fmt.Sprint(v))
}

// escapeList lets the actions in a list, and in what is in it, end with escape.
func escapeList(list *parse.ListNode) {
	if list == nil {
		return
	}
	for _, n := range list.Nodes {
		switch n := n.(type) {
		case *parse.ActionNode:
			if len(n.Pipe.Decl) > 0 {
				continue // which prints nothing
			}
			n.Pipe.Cmds = append(n.Pipe.Cmds, &parse.CommandNode{NodeType: parse.NodeCommand, Pos: n.Pos,
				Args: []parse.Node{parse.NewIdentifier(escape).SetPos(n.Pos)}})
		case *parse.IfNode:
			escapeBranch(&n.BranchNode)
		case *parse.RangeNode:
			escapeBranch(&n.BranchNode)
		case *parse.WithNode:
			escapeBranch(&n.BranchNode)
		}
	}
}

func escapeBranch(b *parse.BranchNode) {
	escapeList(b.List)
	escapeList(b.ElseList)
}

// check looks at each place where something is put in. It follows the text as it stands, so a tag must begin and end in the
// same part of a template.
func check(text string) error {
	for rest := text; ; {
		before, after, found := strings.Cut(rest, "{{")
		if !found {
			return nil
		}
		_, after, _ = strings.Cut(after, "}}")
		done := text[:len(text)-len(rest)+len(before)]
		if why := misplaced(done); why != "" {
			return fmt.Errorf("line %d: an action %s", 1+strings.Count(done, "\n"), why)
		}
		rest = after
	}
}

// misplaced says what is wrong with an action behind the text; "" if nothing is.
func misplaced(text string) string {
	text = strings.ToLower(text)
	for _, word := range []string{"script", "style"} {
		if open := strings.LastIndex(text, "<"+word); open > strings.LastIndex(text, "</"+word) && strings.Contains(text[open:], ">") {
			return "in a " + word
		}
	}
	if strings.LastIndex(text, "<!--") > strings.LastIndex(text, "-->") {
		return "in a comment"
	}
	start := strings.LastIndexByte(text, '<')
	if start < 0 {
		return ""
	}
	attr, value, quote := "", 0, byte(0)
	for i := start; i < len(text); i++ {
		switch c := text[i]; {
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '>':
			return "" // behind a tag
		case c == '"' || c == '\'':
			quote, value = c, i+1
			words := strings.Fields(strings.TrimRight(text[start:i], "= \t\n"))
			attr = words[len(words)-1]
		}
	}
	switch {
	case quote == 0:
		return "in a tag, but not in a quoted attribute"
	case strings.HasPrefix(attr, "on"), attr == "style", attr == "srcdoc":
		return "in the attribute " + attr
	case value == len(text) && attr != "id" && attr != "class" && attr != "nonce" && attr != "title":
		return "at the beginning of the attribute " + attr
	}
	return ""
}
