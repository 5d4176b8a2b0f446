// Command reference_gateway is what the gateway is compared with: one of Go's standard library alone, with TLS and
// HTTP/2, tenants by host, one limit for each address, routes by path, upgrades, and the gateway's bounds of heads
// and bodies. -tight has the first request to its path, and then one an hour.
//
//	reference_gateway [-rate N] [-burst N] [-tight PATH]
//		TLS_ADDRESS PLAIN_ADDRESS CERTIFICATE KEY SERVICE_URL BULK_SERVICE_URL
package main

import (
	"flag"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"time"
)

const (
	baseDomain = ".id.localhost"
	maxBody    = 10 << 20
	maxHead    = 32 << 10
)

type bucket struct {
	tokens float64
	last   time.Time
}

type limiter struct {
	rate, burst float64
	lock        sync.Mutex
	buckets     map[string]*bucket
}

type route struct {
	path  string
	proxy *httputil.ReverseProxy
}

func newLimiter(rate, burst float64) *limiter {
	return &limiter{rate: rate, burst: burst, buckets: map[string]*bucket{}}
}

func (l *limiter) allow(key string) bool {
	now := time.Now()
	l.lock.Lock()
	defer l.lock.Unlock()
	b := l.buckets[key]
	if b == nil {
		b = &bucket{l.burst, now}
		l.buckets[key] = b
	}
	b.tokens = min(l.burst, b.tokens+now.Sub(b.last).Seconds()*l.rate)
	b.last = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

func fail(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	w.Write([]byte(`{"code":"` + code + `"}`))
}

func main() {
	rate := flag.Float64("rate", 200, "requests a second of one address")
	burst := flag.Float64("burst", 2000, "requests at once")
	tight := flag.String("tight", "", "path that has one request an hour")
	flag.Parse()
	quiet := log.New(io.Discard, "", 0)
	transport := &http.Transport{
		MaxIdleConns: 1024, MaxIdleConnsPerHost: 256, MaxConnsPerHost: 1024, IdleConnTimeout: 60 * time.Second,
	}
	to := func(address string) *httputil.ReverseProxy {
		service, err := url.Parse(address)
		if err != nil {
			log.Fatal(err)
		}
		return &httputil.ReverseProxy{Transport: transport, ErrorLog: quiet, Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(service)
			r.Out.Host = r.In.Host
			r.SetXForwarded()
		}}
	}
	routes := []route{{"/v1/users", to(flag.Arg(4))}, {"/v1/auth", to(flag.Arg(5))}}
	traffic, hourly := newLimiter(*rate, *burst), newLimiter(1.0/3600, 1)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := strings.Cut(r.Host, ":")
		tenant, ours := strings.CutSuffix(host, baseDomain)
		if !ours {
			fail(w, http.StatusMisdirectedRequest, "misdirected_request")
			return
		}
		if tenant != "acme" {
			fail(w, http.StatusNotFound, "unknown_tenant")
			return
		}
		r.Header.Set("X-Tenant-ID", tenant)
		address, _, _ := net.SplitHostPort(r.RemoteAddr)
		if !traffic.allow(address) || (*tight != "" && r.URL.Path == *tight && !hourly.allow(address)) {
			w.Header().Set("Retry-After", "1")
			fail(w, http.StatusTooManyRequests, "rate_limited")
			return
		}
		if origin := r.Header.Get("Origin"); origin != "" {
			w.Header().Set("Access-Control-Allow-Origin", origin)
			w.Header().Add("Vary", "Origin")
			if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" {
				w.Header().Set("Access-Control-Allow-Methods", "GET, POST, PUT, PATCH, DELETE")
				w.WriteHeader(http.StatusNoContent)
				return
			}
		}
		for _, route := range routes {
			if r.URL.Path == route.path || strings.HasPrefix(r.URL.Path, route.path+"/") {
				r.Body = http.MaxBytesReader(w, r.Body, maxBody)
				route.proxy.ServeHTTP(w, r)
				return
			}
		}
		fail(w, http.StatusNotFound, "no_route")
	})
	server := func(address string) *http.Server {
		return &http.Server{
			Addr: address, Handler: handler, ErrorLog: quiet, MaxHeaderBytes: maxHead,
			ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 75 * time.Second,
		}
	}
	go func() { log.Fatal(server(flag.Arg(1)).ListenAndServe()) }()
	log.Fatal(server(flag.Arg(0)).ListenAndServeTLS(flag.Arg(2), flag.Arg(3)))
}
