module github.com/pitaya-go/pitaya

go 1.26
